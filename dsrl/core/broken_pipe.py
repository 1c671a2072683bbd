"""Exit quietly when the reader of our output has gone, as in `dsrl trace ID | head`."""

import os
import select
import sys
from typing import NoReturn, TextIO

SIGPIPE_EXIT_CODE = 141
"""Exit code that a shell reports for SIGPIPE."""


def exit_quietly(error: BrokenPipeError) -> NoReturn:
    """Exit if the broken pipe is our own output; else raise `error`."""
    closed = [stream for stream in filter(None, (sys.stdout, sys.stderr)) if _has_no_reader(stream)]
    if not closed:
        raise error
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in closed:  # also what the interpreter still flushes at its end
        os.dup2(null, stream.fileno())
    os.close(null)
    raise SystemExit(SIGPIPE_EXIT_CODE) from error


def _has_no_reader(stream: TextIO) -> bool:
    watch = select.poll()
    watch.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0))
