"""The parts of the public object `ipc` that are objects of their own."""
