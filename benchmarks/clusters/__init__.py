"""Clusters: two servers over a broker on this machine, beside the broker's bare client.

Law: as in the rest of the benchmarks: ratios of one run, medians of rounds that take turns. The bare client
moves envelopes of the same number and size as the bridge did just before.

    python -m benchmarks.clusters
"""
