"""The calls store: append-only segments, an index over them, and who is asking for what."""
