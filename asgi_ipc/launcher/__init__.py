"""The code of the parent process. Never imports `asgi_ipc.worker`."""
