"""What happens to a good reply on its way out."""

import asyncio
import json
from typing import Any

from tests.support.faultserver.http import Exchange, head

PIECES = 8
"""Of a body that trickles."""
HTML = b"<!doctype html><html><head><title>Service</title></head><body><h1>Please come again later</h1></body></html>"
OTHER_FIELDS = {"result": {"output": "fine"}, "status": "ok"}


def broken(exchange: Exchange, served: dict[str, Any], fault: str, slow: float) -> None:
    """Answers with a reply to which this has happened."""
    content = json.dumps(served).encode()
    match fault:
        case "drop":
            exchange.drop()
        case "cut":
            exchange.write(head(200, len(content)) + content[: len(content) // 2])
            asyncio.get_running_loop().call_later(slow, exchange.drop)
        case "truncated":
            exchange.reply_bytes(200, content[: len(content) * 2 // 3])
        case "malformed":
            exchange.reply_bytes(200, b"{'choices': [" + content[1:])
        case "html":
            exchange.reply_bytes(200, HTML, kind="text/html")
        case "trickle":
            _trickle(exchange, head(200, len(content)) + content, -(-len(content) // PIECES), slow)
        case "fields":
            exchange.reply(200, OTHER_FIELDS)
        case "empty":
            exchange.reply(200, {**served, "choices": []})
        case "no_usage":
            exchange.reply(200, {name: value for name, value in served.items() if name != "usage"})
        case "same_ids":
            choices = [{**choice, "index": 0} for choice in served["choices"]]
            exchange.reply(200, {**served, "id": "chatcmpl-0", "choices": choices})
        case _:
            exchange.reply(200, served)


def _trickle(exchange: Exchange, data: bytes, size: int, slow: float) -> None:
    exchange.write(data[:size])
    if len(data) <= size:
        exchange.finish()
    elif exchange.open:
        asyncio.get_running_loop().call_later(slow, _trickle, exchange, data[size:], size, slow)
