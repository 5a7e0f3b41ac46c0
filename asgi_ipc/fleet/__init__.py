"""The fleet: processes. Which workers should exist, who is told what, who leads, who is first.

Law: nothing in this folder asks the kernel, the event loop or the clock.
Events and times go in, actions and words come out. The linter bans the
modules that could break this.
"""
