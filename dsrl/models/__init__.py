"""Everything that runs weights."""
