"""Requests through the batch API of an endpoint: half the price, within a day."""
