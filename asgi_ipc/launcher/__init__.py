"""What runs in the parent process. Never imports `asgi_ipc.worker`."""
