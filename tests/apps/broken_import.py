"""An app that can't be imported."""

raise RuntimeError("broken on purpose while importing")
