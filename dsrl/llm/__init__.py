"""The client for paid and served models: reply cache, rate limits, retries, budget, structured output, batch API."""

from dsrl.llm.client import Client
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.ledger.spending import RequestSize, Spending
from dsrl.llm.price import Price
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.request import Request
from dsrl.llm.servers import Servers, VllmServer
from dsrl.llm.structured.answer import Answer

__all__ = [
    "Answer",
    "Client",
    "Endpoint",
    "Ledger",
    "Price",
    "ReplyCache",
    "Request",
    "RequestSize",
    "Servers",
    "Spending",
    "VllmServer",
]
