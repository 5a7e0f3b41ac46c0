"""The decisions: pure machines that run nowhere and everywhere.

Law: nothing in this folder asks the kernel, the event loop or the clock.
Bytes, events, limits and times arrive as arguments; what is to be done is
returned. The linter bans the modules that could break this.
"""
