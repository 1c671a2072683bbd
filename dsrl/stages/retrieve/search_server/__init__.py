"""Passages on an Elasticsearch or OpenSearch server. Only `retriever` is imported before a server is asked."""
