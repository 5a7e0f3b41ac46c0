"""The bridge process: the connection of one server to the broker of its cluster.

Law: the launcher starts it beside the workers, as a helper; it serves no request. What it decides is decided
    in `asgi_ipc/cluster`.
"""
