"""This package as a subject: the app that its workers run, and the builds of it that are measured.

Law: `app` runs in workers of any build, so neither this file nor what it imports asks for more than public
names of `asgi_ipc`.
"""

from __future__ import annotations

from typing import Final

NAME: Final = "asgi-ipc"
