"""Dispatch: what is registered, called in order, in flight and converted.

Law: it knows nothing of pipes or peers: never imports `transport/` or `features/`.
"""
