"""A deterministic simulation: the shipped launcher and workers on a kernel, a clock and chance of its own.

Law: nothing of the product is rewritten for it. Each process has an event
loop of its own that is turned by a seeded scheduler; pipes, sockets, signals
and deaths are the simulated kernel's; what must hold is judged from outside.
"""

from tests.faults.simulation.report import Report, simulate

__all__ = ["Report", "simulate"]
