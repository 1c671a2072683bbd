"""Finds passages that serve as raw material for samples."""

from dsrl.retrieve.retriever import Embedded, NoRetriever, Retriever
from dsrl.retrieve.stage import Retrieve

__all__ = ["Embedded", "NoRetriever", "Retrieve", "Retriever"]
