"""Benchmarks of the public API, through real workers: `python -m benchmarks`, or `make bench`.

Law: `asgi_ipc` imports nothing from here, and this folder uses only its public names. A figure counts only if
every message arrived, unaltered and in order; otherwise the command fails.

A **subject** is what is measured: this package, a peer, a yardstick. Its processes are a **fleet** of
**parties**. All get their orders over one control socket in the same words, so that all are measured and
judged alike. A **shape** names senders, receivers and amounts; a **case** is one way to send a shape.
"""
