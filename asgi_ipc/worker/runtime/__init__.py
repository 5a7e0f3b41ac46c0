"""Runtime: the process itself: its signals, its stack when it hangs, and its end."""
