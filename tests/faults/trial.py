"""Trials: one fault, one way to run the workers, and the figures measured.

Law: a row names its fault and the promises; a trial of the row has a real server, real faults and measured
figures. A figure that does not hold is written down like any other, and the trial has failed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator
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
    figures: list[Figure] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def check(self, what: str, measured: object, holds: bool) -> None:
        """Write down a figure, as a person would say it."""
        self.figures.append(Figure(self.prefix + what, str(measured), holds))

    def none(self, what: str, found: Collection[object] | int) -> None:
        """There is nothing of the kind; the first of it are written down."""
        if isinstance(found, int):
            self.check(what, found, not found)
        else:
            self.check(what, list(found)[:SHOWN] or 0, not found)

    def equal(self, what: str, count: int, wanted: int) -> None:
        """As many as there should be."""
        self.check(what, f"{count:,} of {wanted:,}", count == wanted)

    def least(self, what: str, value: float, least: float) -> None:
        """There are at least so many of them."""
        self.check(f"at least {least:,} {what}", f"{value:,.0f}", value >= least)

    def yes(self, what: str, holds: bool) -> None:
        """It is so."""
        self.check(what, "yes" if holds else "no", holds)

    def within(self, what: str, seconds: float, most_s: float) -> None:
        """It took no longer."""
        self.check(f"{what} within {most_s:g} s", as_ms(seconds), seconds <= most_s)

    def ended(self, status: int, what: str = "exit status") -> None:
        """The server has ended with 0."""
        self.check(what, status, status == 0)

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

    def say(self, what: str, measured: object) -> None:
        """Write down what was measured, though nothing is promised of it."""
        self.check(what, measured, True)

    @property
    def failures(self) -> list[str]:
        """The figures that do not hold."""
        return [str(figure) for figure in self.figures if not figure.holds]


class Run(Protocol):
    """A function that injects a fault and writes the figures down."""

    __name__: str

    def __call__(self, trial: Trial, /) -> Awaitable[None]: ...


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


def describe(counts: dict[str, Any]) -> str:
    """Some counts in one line."""
    return ", ".join(f"{value:,} {name}" for name, value in counts.items())
