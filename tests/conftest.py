"""The suite's plugin: the package's own, if the installed package does not bring it.

And the last lines of a run, on tests that were skipped (needs.py).

Law: `make test` runs against the installed wheel, which registers it; this is for a run from the source tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

from tests.needs import BUILDS, MISSING, PROGRAMS, required


def pytest_configure(config: pytest.Config) -> None:
    known = [*PROGRAMS, "native", "root", *BUILDS]
    if unknown := required().difference(known):
        raise pytest.UsageError(f"ASGI_IPC_REQUIRE names {unknown}; there are {', '.join(known)}")
    if not config.pluginmanager.has_plugin("asgi_ipc"):
        config.pluginmanager.import_plugin("asgi_ipc.testing.plugin")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    yield
    missing: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        # (path, line, reason)
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(MISSING):
            missing[reason.removeprefix(MISSING)] += 1
    if missing:
        terminalreporter.section("left out on this machine", sep="=", yellow=True)
        for what, count in missing.items():
            terminalreporter.line(f"{count} test{'s' * (count > 1)} skipped for want of {what}", yellow=True)
