"""What a run stands on: Ray, Slurm, GPUs, experiment trackers."""
