"""Fuzzing of the pure protocol: bytes in a pipe to messages, with any other bytes between them.

Law: an execution is a function of its decisions, a string of bytes. So every
failure is replayed from them, and the same code serves a guided fuzzer, a
seeded generator and hypothesis.

    wire       what genuine senders write, and what strays and forgers may
    script     writes and reads, and whom the changes (damage, forgery) harm
    drawing    decisions -> script
    reference  what must come of a script
    judge      script -> the real parser and reassembler -> compared with all that
    child      many executions in one process
"""
