"""`dsrl doctor`: what is installed, what is missing, and whether a teacher accepts what its config says."""

from dsrl.cli.doctor.command import doctor

__all__ = ["doctor"]
