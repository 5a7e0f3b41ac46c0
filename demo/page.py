"""The page: a few files, read once, at import.

Law: no name from a request reaches the disk. The page may load from and reach this server only; with the
policy below the browser enforces that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_FOLDER: Final = Path(__file__).parent / "static"
_INDEX: Final = "page.html"
_MEDIA_TYPES: Final = {
    _INDEX: "text/html",
    "page.css": "text/css",
    "side.css": "text/css",
    "hosts.css": "text/css",
    "page.js": "text/javascript",
    "ask.js": "text/javascript",
    "chat.js": "text/javascript",
    "follow.js": "text/javascript",
    "hosts.js": "text/javascript",
    "look.js": "text/javascript",
    "post.js": "text/javascript",
    "storage.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_FILES: Final = {name: (_FOLDER / name).read_bytes() for name in _MEDIA_TYPES}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The browser sees a newer version at once.
    "Cache-Control": "no-cache",
}


async def index(request: Request) -> Response:
    """The page itself."""
    return _file(_INDEX)


async def static(request: Request) -> Response:
    """Return one file of the page."""
    return _file(request.path_params["name"])


def _file(name: str) -> Response:
    if name not in _FILES:
        raise HTTPException(404)
    return Response(_FILES[name], media_type=_MEDIA_TYPES[name], headers=_HEADERS)
