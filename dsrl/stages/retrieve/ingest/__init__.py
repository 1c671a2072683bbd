"""Reads files, archives and Hugging Face datasets of any size as one stream of short, distinct pieces."""

from dsrl.stages.retrieve.ingest.pipeline import read_pieces
from dsrl.stages.retrieve.ingest.records import Document, Ingest, IngestReport, MalformedRow, Piece

__all__ = ["Document", "Ingest", "IngestReport", "MalformedRow", "Piece", "read_pieces"]
