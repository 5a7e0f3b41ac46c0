"""What runs in the worker processes. Never imports `asgi_ipc.launcher`."""
