"""What every package may use: components and their keys, errors, digests, child processes, files."""
