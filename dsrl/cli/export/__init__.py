"""`dsrl export` and `export_dir`: a run's samples and model as a data set and a model that others can load."""

from dsrl.cli.export.command import export
from dsrl.cli.export.folder import check_free
from dsrl.cli.export.write import export_to

__all__ = ["check_free", "export", "export_to"]
