"""Runs as jobs of Slurm: `dsrl submit`, `dsrl status`, and the launcher of sweeps."""
