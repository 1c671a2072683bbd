"""Retrieves passages, the raw material of generated samples, from corpora."""

from dsrl.stages.retrieve.elastic import Elasticsearch
from dsrl.stages.retrieve.ingest import Ingest
from dsrl.stages.retrieve.retriever import Embedded, NoRetriever, Retriever
from dsrl.stages.retrieve.stage import Retrieve

__all__ = ["Elasticsearch", "Embedded", "Ingest", "NoRetriever", "Retrieve", "Retriever"]
