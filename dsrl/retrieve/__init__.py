"""Finds passages that serve as raw material for samples."""

from dsrl.retrieve.elastic import Elasticsearch
from dsrl.retrieve.ingest import Ingest
from dsrl.retrieve.retriever import Embedded, NoRetriever, Retriever
from dsrl.retrieve.stage import Retrieve

__all__ = ["Elasticsearch", "Embedded", "Ingest", "NoRetriever", "Retrieve", "Retriever"]
