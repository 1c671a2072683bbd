"""Every paid call of the project: one client for the teacher and for served models, its store, its ledger."""

from dsrl.llm.client import Client
from dsrl.llm.endpoint import Endpoint, Price
from dsrl.llm.ledger.ledger import Ledger, Size, Spending
from dsrl.llm.reply_cache.cache import CallsStore
from dsrl.llm.request import Request
from dsrl.llm.servers import Servers
from dsrl.llm.structured.answer import Answer
from dsrl.llm.vllm_server import VllmServer

__all__ = [
    "Answer",
    "CallsStore",
    "Client",
    "Endpoint",
    "Ledger",
    "Price",
    "Request",
    "Servers",
    "Size",
    "Spending",
    "VllmServer",
]
