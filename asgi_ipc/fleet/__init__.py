"""The fleet: processes. The decisions of the launcher: processes, members and their words, the leader, the
first at a key.

Law: nothing in this folder asks the kernel, the event loop or the clock.
Events and times go in, actions and words come out. The linter bans the
modules that could break this.
"""
