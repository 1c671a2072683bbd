"""Passages on an Elasticsearch server. Only `Elasticsearch` is loaded before a server is asked."""

from dsrl.stages.retrieve.elastic.description import Elasticsearch

__all__ = ["Elasticsearch"]
