"""The demo: one app whose workers talk to each other, and one page to watch them.

Law: it uses only what any app can use: `from asgi_ipc import ipc` and Starlette, nothing private. It is in
the source archive and the image, not in the wheel.
"""

from demo.app import app

__all__ = ["app"]
