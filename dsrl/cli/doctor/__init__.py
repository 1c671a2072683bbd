"""`dsrl doctor`: what is there, what is missing, and whether a teacher takes what its file says."""

from dsrl.cli.doctor.command import doctor

__all__ = ["doctor"]
