"""Beside plain uvicorn: what an app pays for this package when it does not use it, or hardly.

The same endpoint under `uvicorn --workers` and under `asgi-ipc serve`; nothing
is imported here, so that a worker's memory is the app's.
"""
