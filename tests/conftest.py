"""The suite's plugin: the package's own, where the installed package does not bring it.

Law: `make test` runs against the installed wheel, which registers it; this is for a run from the source tree.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("asgi_ipc"):
        config.pluginmanager.import_plugin("asgi_ipc.testing.plugin")
