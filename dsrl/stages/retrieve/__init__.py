"""Retrieves passages, the raw material of generated samples, from corpora."""

from dsrl.stages.retrieve.ingest import Ingest
from dsrl.stages.retrieve.retriever import Embedded, NoRetriever, Retriever
from dsrl.stages.retrieve.search_server.retriever import SearchServer
from dsrl.stages.retrieve.stage import Retrieve

Elasticsearch = SearchServer
"""Name in configs that were written before OpenSearch was supported."""

__all__ = ["Elasticsearch", "Embedded", "Ingest", "NoRetriever", "Retrieve", "Retriever", "SearchServer"]
