"""Fuzzing of the pure protocol: bytes in a pipe to messages, with any other bytes between them.

Law: hypothesis draws a script, shrinks what fails and says it again from its seed; atheris may drive the
same property (`fuzz_one_input`). An execution is a function of its script.

    wire       what genuine senders write, and what strays and forgers may
    script     writes and reads, and whom the changes (damage, forgery) harm
    drawing    the strategy of scripts
    reference  what must come of a script
    judge      script -> the real parser and reassembler -> compared with all that
"""
