"""The command: run rows of the table of faults, one after the other, and write down the results.

Law: results accumulate in a JSON file, each with its commit, and the table in docs/guarantees.md is made of
that file only. The exit status says whether every figure of this run holds.

    python -m tests.faults                      # all of them: some hours
    python -m tests.faults restarts kills       # these rows
    python -m tests.faults restarts --variant asyncio --count 5
    python -m tests.faults --table              # only write the table again
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from asgi_ipc import engine
from tests.faults.results import Results, write_table
from tests.faults.rows import ROWS
from tests.faults.trial import VARIANTS, NotHereError, Row, Trial, Variant


def main() -> int:
    """As asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--variant", choices=list(VARIANTS), help="only this way to run the workers")
    parser.add_argument("--count", type=int, help="instead of the row's own")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table again")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.rows if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    if chosen.table:
        write_table()
        return 0
    # Ended politely like with Ctrl-C, so that no server stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ok = True
    for row in [ROWS[name] for name in chosen.rows or ROWS]:
        for variant, count in row.full.items():
            if chosen.variant in (None, variant.name):
                ok &= _try(row, variant, chosen.count or count, is_full=chosen.count is None)
    return 0 if ok else 1


def _try(row: Row, variant: Variant, count: int, *, is_full: bool) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"faults-{row.name}-"))
    trial = Trial(variant, count, folder, full=True)
    _print(f"{row.name} on {variant.name}: {count:,} {row.counts}; the {engine.name()} engine is installed")
    began = time.monotonic()
    try:
        asyncio.run(row.run(trial))
    except NotHereError as reason:
        _print(f"    not run: {reason}")
        shutil.rmtree(folder, ignore_errors=True)
        return True
    except Exception:  # noqa: BLE001  # whatever it is, the row has failed and the next one follows
        trial.check("no error of the run itself", traceback.format_exc(), False)
    seconds = time.monotonic() - began
    for figure in trial.figures:
        _print(f"    {figure}")
    _print(f"    {seconds:.0f} s")
    if is_full:
        Results.load().add(row, trial, seconds)
        write_table()
    if trial.failures:
        _print(f"    see {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return not trial.failures


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
