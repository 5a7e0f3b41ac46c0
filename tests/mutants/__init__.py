"""Mutation testing: does a test fail when one expression or statement of the package is changed?

Law: mutmut's operators make the mutants; this package samples and runs them, and compares the survivors with
docs/mutants.md. The working tree is only read.
"""
