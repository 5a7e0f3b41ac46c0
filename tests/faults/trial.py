"""Trials: one fault, one way to run the workers, and the figures measured.

Law: a row names its fault and the promises; a trial of the row has a real server, real faults and measured
figures. A figure that does not hold is written down like any other, and the trial has failed.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the workers. `options` are those of `asgi-ipc serve`."""

    name: str
    options: tuple[str, ...]


UVLOOP: Final = Variant("uvloop", ("--loop", "uvloop"))
ASYNCIO: Final = Variant("asyncio", ("--loop", "asyncio"))
SMALL: Final = Variant("small", ("--loop", "uvloop", "--max-packet-bytes", "512", "--pipe-bytes", "16384"))

# Simulation and fuzzing run in no server.
PURE: Final = Variant("pure", ())

VARIANTS: Final = {variant.name: variant for variant in (UVLOOP, ASYNCIO, SMALL, PURE)}


# Examples of what should not be that are written down.
SHOWN: Final = 5


class NotHereError(Exception):
    """The machine lacks something that a row needs, so nothing was measured; the text names it."""


class Figure(msgspec.Struct, frozen=True):
    """One thing that must hold, and what was measured."""

    what: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds ' if self.holds else 'FAILS '} {self.what}: {self.measured}"


@dataclass(slots=True)
class Trial:
    """One run of a row.

    A figure that is written down several times is one figure of all rounds: counts add up, and of times and
    of verdicts the worst stays.

    Attributes:
        variant: how the workers run.
        count: how often the fault is injected, or how much of it; each row says what it counts.
        folder: a new one, for the row's files.
        full: the figures are those of a long run, not of its short form in the test suite.
        prefix: what each figure begins with.
    """

    variant: Variant
    count: int
    folder: Path
    full: bool = False
    prefix: str = ""
    _figures: dict[str, Figure] = field(default_factory=dict)
    # What was measured so far, by figure.
    _measured: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def failures(self) -> list[str]:
        """The figures that do not hold."""
        return [str(figure) for figure in self.figures if not figure.holds]

    def _all(self, what: str, *values: Any) -> list[Any]:
        """Add what was measured now; all of it."""
        measured = self._measured[self.prefix + what]
        measured += values
        return measured

    def check(self, what: str, measured: object, holds: bool) -> None:
        """Write down a figure, as a person would say it."""
        what = self.prefix + what
        if what not in self._figures or self._figures[what].holds:
            self._figures[what] = Figure(what, str(measured), holds)

    def say(self, what: str, measured: object) -> None:
        """Write down what was measured, though nothing is promised of it."""
        self.check(what, measured, True)

    def none(self, what: str, found: Collection[object] | int) -> None:
        """There is nothing of the kind; how many, or the first of it, are written down."""
        if isinstance(found, int):
            count = sum(self._all(what, found))
            self._put(what, count, not count)
        else:
            everything = self._all(what, *found)
            self._put(what, everything[:SHOWN] or 0, not everything)

    def equal(self, what: str, count: int, wanted: int = 1) -> None:
        """As many as there should be."""
        pairs = self._all(what, (count, wanted))
        text = f"{sum(count for count, _ in pairs):,} of {sum(wanted for _, wanted in pairs):,}"
        self._put(what, text, all(count == wanted for count, wanted in pairs))

    def sums(self, what: str, counts: Mapping[str, int]) -> None:
        """Write down some counts."""
        total: Counter[str] = Counter()
        for each in self._all(what, counts):
            total.update(each)
        self._put(what, describe(total), True)

    def least(self, what: str, value: float, least: float) -> None:
        """There are at least so many of them."""
        self.check(f"at least {least:,} {what}", f"{value:,.0f}", value >= least)

    def yes(self, what: str, holds: bool) -> None:
        """It is so."""
        self.check(what, "yes" if holds else "no", holds)

    def at_most(self, what: str, seconds: float, most_s: float = float("inf")) -> None:
        """It never took longer."""
        took = self._all(what, seconds)
        worst_s = max(took)
        median = f"median {as_ms(percentile(took, 0.5))}, longest " if len(took) > 1 else ""
        self._put(what, median + as_ms(worst_s), worst_s <= most_s)

    def within(self, what: str, seconds: float, most_s: float) -> None:
        """It never took longer, and the figure says how long it may take."""
        self.at_most(f"{what} within {most_s:g} s", seconds, most_s)

    def ended(self, status: int, what: str = "exit status", wanted: int = 0) -> None:
        """The server has ended with that status."""
        statuses = self._all(what, status)
        self._put(what, ", ".join(map(str, statuses)), set(statuses) == {wanted})

    def _put(self, what: str, measured: object, holds: bool) -> None:
        """Write down a figure of all rounds so far."""
        what = self.prefix + what
        self._figures[what] = Figure(what, str(measured), holds)

    def part(self, name: str, prefix: str = "") -> Trial:
        """A part of it with a new folder; the figures are those of the whole."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder, prefix=self.prefix + prefix)

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Write down how long it takes."""
        began = time.monotonic()
        yield
        self.say(what, f"{time.monotonic() - began:.1f} s")

    def rounds(self) -> Iterator[Trial]:
        """As many parts as the fault is injected, each with a folder of its own."""
        return (self.part(str(number)) for number in range(self.count))


class Run(Protocol):
    """A function that injects a fault and writes the figures down."""

    __name__: str

    def __call__(self, trial: Trial, /) -> Coroutine[Any, Any, None]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One fault of the table.

    Attributes:
        fault, how: for the table.
        counts: what `Trial.count` counts.
        full: how many in the long run, by variant.
        short: how many in the short form, on the first of these variants and, if `short_everywhere`,
            on all of them.
        run: does it, and writes the figures down.
    """

    fault: str
    how: str
    counts: str
    full: dict[Variant, int]
    short: int
    short_everywhere: bool
    run: Run

    @property
    def name(self) -> str:
        """One word, for the command line."""
        return self.run.__name__.replace("_", "-")

    @property
    def short_variants(self) -> list[Variant]:
        """Those of the short form."""
        variants = list(self.full)
        return variants if self.short_everywhere else variants[:1]


def row(
    *,
    fault: str,
    how: str,
    counts: str,
    full: dict[Variant, int],
    short: int,
    short_everywhere: bool = False,
) -> Callable[[Run], Row]:
    """Make a row of the function that injects its fault, named as the function."""
    return lambda run: Row(fault, how, counts, full, short, short_everywhere, run)


def everywhere(count: int) -> dict[Variant, int]:
    """All of it on uvloop, a tenth on asyncio and with small packets and pipes."""
    tenth = max(count // 10, 1)
    return {UVLOOP: count, ASYNCIO: tenth, SMALL: tenth}


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def as_ms(seconds: float) -> str:
    """Seconds, as a person reads them."""
    return f"{seconds * 1000:.1f} ms"


def describe(counts: Mapping[str, int]) -> str:
    """Some counts in one line."""
    return ", ".join(f"{value:,} {name}" for name, value in counts.items())
