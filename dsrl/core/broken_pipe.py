"""What becomes of a program whose output nobody reads any more, as in `dsrl trace ID | head`."""

import os
import select
import sys
from typing import NoReturn, TextIO

UNREAD = 141
"""Exit code that a shell gives for SIGPIPE."""


def exit_quietly(error: BrokenPipeError) -> NoReturn:
    """End quietly where it is our own output that nobody reads; raises `error` where it is another pipe."""
    gone = [stream for stream in filter(None, (sys.stdout, sys.stderr)) if _is_unread(stream)]
    if not gone:
        raise error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in gone:  # what is still to be written, at the interpreter's end too
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    raise SystemExit(UNREAD) from error


def _is_unread(stream: TextIO) -> bool:
    watch = select.poll()
    watch.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0))
