"""Benchmarks of the public API, through real workers: `python -m benchmarks`, or `make bench`.

Law: nothing here is imported by `asgi_ipc`, and nothing here reaches past its
public names. A figure counts only if every message arrived, unaltered and in
order; if one did not, the command fails.

A **subject** is what is measured: this package, a peer, a yardstick. Its
processes are a **fleet** of **parties**, all told what to do over one control
socket in the same words, so that all are measured and judged alike. A **shape**
is who sends how much to whom; a **case** is one way to do that.
"""
