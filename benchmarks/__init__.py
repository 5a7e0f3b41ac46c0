"""Benchmarks of the public API, through real workers: `python -m benchmarks`, or `make bench`.

Law: nothing here is imported by `asgi_ipc`, and nothing here reaches past its
public names. A figure counts only if every message arrived, unaltered and in
order; if one did not, the command fails.
"""
