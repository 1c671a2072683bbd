"""The engine: stages, keys, the store, the runner, the run folder. It knows no stage by name."""
