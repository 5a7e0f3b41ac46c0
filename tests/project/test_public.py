"""The public names: docs/api.md lists them all, and no example imports from anywhere else."""

from __future__ import annotations

import re

import asgi_ipc
import asgi_ipc.testing
from tests.serving import ROOT

IMPORT = re.compile(r"^\s*from (asgi_ipc[\w.]*) import ([^\n(]+|\([^)]*\))", re.MULTILINE)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "demo").rglob("*.py"))


def test_every_public_name_is_exported_and_listed() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    ours, testing = page.split("## `asgi_ipc.testing`")
    listed = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|(.*)\|$", ours, re.MULTILINE))))
    assert set(asgi_ipc.__all__) <= listed
    assert set(asgi_ipc.testing.__all__) <= set(re.findall(r"`(\w+)`", testing))
    for name in asgi_ipc.__all__:
        assert hasattr(asgi_ipc, name)


def test_docs_and_demo_import_public_names_only() -> None:
    for path in [*PAGES, *EXAMPLES]:
        text = path.read_text()
        for module, names in IMPORT.findall(text):
            assert module in ("asgi_ipc", "asgi_ipc.testing"), (path, module)
            public = asgi_ipc.__all__ if module == "asgi_ipc" else asgi_ipc.testing.__all__
            imported = set(re.findall(r"\w+", names.partition("#")[0]))
            assert imported <= {*public, "__version__"}, path
