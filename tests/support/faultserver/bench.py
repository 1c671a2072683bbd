"""How fast the fault server is by itself, so that a figure measured against it is known to be the client's."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.faultserver.faults import Faults
from tests.support.faultserver.http import END, LENGTH
from tests.support.faultserver.listener import HOST
from tests.support.faultserver.serve import serve


@dataclass
class Load:
    """Requests still to be sent, and when all have been answered."""

    left: int
    choices: int
    done: int = 0
    wanted: int = field(init=False)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.wanted = self.left

    def next(self) -> bytes | None:
        """The next request."""
        if not self.left:
            return None
        self.left -= 1
        content = f"Question {self.left}: how many boats are there?"
        body = {"model": "m", "messages": [{"role": "user", "content": content}], "n": self.choices, "max_tokens": 64}
        data = json.dumps(body).encode()
        return b"POST /v1/chat/completions HTTP/1.1\r\nHost: l\r\nContent-Length: %d\r\n\r\n" % len(data) + data


class Raw(asyncio.Protocol):
    """A client that does next to nothing: one request after the other, replies counted by their length."""

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load, self.buffer = load, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.send()

    def send(self) -> None:
        request = self.load.next()
        if request is not None:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(END)
        length = LENGTH.search(self.buffer, 0, end + 2) if end >= 0 else None
        if length is None or len(self.buffer) < end + len(END) + int(length[1]):
            return
        self.buffer.clear()
        self.load.done += 1
        if self.load.done == self.load.wanted:
            self.load.over.set()
        self.send()


async def measure(url: str, requests: int, connections: int, choices: int = 1) -> float:
    """Requests per second."""
    load = Load(requests, choices)
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    port = urlsplit(url).port or 0
    opened = [await loop.create_connection(lambda: Raw(load), HOST, port) for _ in range(min(connections, requests))]
    await load.over.wait()
    seconds = time.perf_counter() - start
    for transport, _ in opened:
        transport.close()
    await asyncio.sleep(0)
    return requests / seconds


def bench(requests: int, connections: int) -> str:
    """A line for each number of choices."""
    lines = []
    with serve(Faults()) as server:
        for choices in (1, 16):
            rate = asyncio.run(measure(server.url, requests, connections, choices))
            lines.append(f"{rate:,.0f} requests/s with n={choices}, over {connections} connections")
    return "\n".join(lines)
