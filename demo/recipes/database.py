"""The database that the cache needs: a SQLite file that all workers share. Put yours in its place."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import Final

PATH: Final = os.environ.get("RECIPES_DATABASE", "recipes.sqlite3")


def _open() -> sqlite3.Connection:
    database = sqlite3.connect(PATH, isolation_level=None)
    database.execute("CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT)")
    return database


def _read(key: str) -> str | None:
    with closing(_open()) as database:
        found = database.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None


def _write(key: str, value: str) -> None:
    with closing(_open()) as database:
        database.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (key, value))


async def read(key: str) -> str | None:
    """Return the value of a key."""
    return await asyncio.to_thread(_read, key)


async def write(key: str, value: str) -> None:
    """Store a value; after this returns, every read returns it."""
    await asyncio.to_thread(_write, key, value)
