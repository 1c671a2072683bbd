"""What becomes of a program whose output nobody reads any more, as in `dsrl trace ID | head`."""

import os
import select
import sys

UNREAD = 141
"""Exit code that a shell gives for SIGPIPE."""


def is_unread() -> bool:
    """Whether standard output or standard error is a pipe whose reader is gone."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    return any(_is_broken(stream.fileno()) for stream in streams)


def discard() -> int:
    """Send what is still to be written nowhere, so that the interpreter can end quietly; returns the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _is_broken(stream.fileno()):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return UNREAD


def _is_broken(descriptor: int) -> bool:
    watch = select.poll()
    watch.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in watch.poll(0))
