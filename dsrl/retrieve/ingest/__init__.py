"""From files, archives and data sets of any size to one stream of short pieces, each once."""

from dsrl.retrieve.ingest.options import Ingest
from dsrl.retrieve.ingest.pipeline import read
from dsrl.retrieve.ingest.records import Document, IngestReport, Malformed, Piece

__all__ = ["Document", "Ingest", "IngestReport", "Malformed", "Piece", "read"]
