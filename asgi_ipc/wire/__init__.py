"""The wire: bytes. What a message, a packet and shared memory look like, and what waits to be sent.

Law: nothing in this folder asks the kernel, the event loop or the clock.
Bytes, limits and times arrive as arguments; what is to be done is returned.
The linter bans the modules that could break this.
"""
