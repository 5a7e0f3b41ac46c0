"""A deterministic simulation: the shipped launcher and workers on a simulated kernel, clock and chance.

Law: nothing of the product is rewritten for it. Each process has an event loop of its own, and a seeded
scheduler runs its turns. The simulated kernel makes pipes, sockets, signals and deaths. The checks judge from
outside.
"""

from tests.faults.simulation.report import Report, simulate

__all__ = ["Report", "simulate"]
