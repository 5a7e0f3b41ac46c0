"""The code of the worker processes. Never imports `asgi_ipc.launcher`."""
