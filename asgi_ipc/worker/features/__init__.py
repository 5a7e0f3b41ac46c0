"""Features: layers over messages and words. Questions, topics, the leader, keys."""
