"""Transport: bytes out and in. Peers, what waits for each, pipes, shared memory. Never imports `dispatch/`."""
