"""Dispatch: handlers, called in order. What is registered, called, in flight and converted. Never imports `transport/`."""
