"""The cluster, pure: nodes, what they say to each other, and what is counted.

Law: no I/O, no clock, no event loop; time is an argument. Worker processes and the bridge both use this.
"""
