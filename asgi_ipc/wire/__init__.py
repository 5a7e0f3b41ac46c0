"""The wire: bytes. The layout of messages, packets and shared memory, and the queue of each receiver.

Law: nothing in this folder asks the kernel, the event loop or the clock.
Bytes, limits and times arrive as arguments; what is to be done is returned.
The linter bans the modules that could break this.
"""
