"""A port on the loopback interface that can be closed and opened again without being lost to somebody else."""

import asyncio
import socket

from dsrl.core.errors import UserError
from tests.support.faultserver.http import Connection, Handler

HOST = "127.0.0.1"
BACKLOG = 4096


class Listener:
    """Listens for one handler."""

    def __init__(self, handle: Handler, port: int = 0) -> None:
        """Port 0: a free one, known at once as `port`."""
        self._handle = handle
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._holder = _bound(port)
        self.port: int = self._holder.getsockname()[1]

    async def open(self) -> None:
        """Listen, if not yet."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._connection, sock=_bound(self.port), backlog=BACKLOG)

    def close(self) -> None:
        """Stop listening and break the connections, if not yet. New ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for connection in list(self._connections):
                connection.transport.abort()

    def _connection(self) -> Connection:
        return Connection(self._handle, self._connections)


def _bound(port: int) -> socket.socket:
    """One that never listens keeps the port ours while nobody does."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        raise UserError(
            f"port {port} can't be taken", got=error, next_step="take another, or 0 for a free one"
        ) from error
    return made
