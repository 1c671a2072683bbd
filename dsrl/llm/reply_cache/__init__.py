"""The reply cache: append-only segment files, an index over them, and locks on requests in flight."""
