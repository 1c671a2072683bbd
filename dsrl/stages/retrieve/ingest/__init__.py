"""From files, archives and data sets of any size to one stream of short pieces, each once."""

from dsrl.stages.retrieve.ingest.options import Ingest
from dsrl.stages.retrieve.ingest.pipeline import read
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, Malformed, Piece

__all__ = ["Document", "Ingest", "IngestReport", "Malformed", "Piece", "read"]
