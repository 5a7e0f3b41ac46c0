"""Transport: bytes out and in. Peers, what waits for each, pipes, shared memory.

Law: it knows nothing of handlers: never imports `dispatch/` or `features/`.
"""
