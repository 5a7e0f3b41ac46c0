"""Beside plain uvicorn: the price of this package for an app that uses it little or not at all.

The same endpoint under `uvicorn --workers` and under `asgi-ipc serve`; this module imports nothing, so that a
worker's memory is the app's.
"""
