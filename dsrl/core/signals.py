"""SIGTERM (batch systems, containers, `kill`) and SIGHUP (a closed terminal or connection) end a run like Ctrl-C."""

import os
import signal
import stat
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGHUP)


class Termination:
    """Signal handler that does what Ctrl-C would do at this moment, inside an event loop or outside of one."""

    received: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self.received is not None:
            return  # a closing terminal may send it twice; the first one has started to end the run
        self.received = number
        if number == signal.SIGHUP:
            _discard_terminal_output()
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # Ctrl-C is ignored, as in a script's background job
            raise KeyboardInterrupt
        interrupt(number, frame)


def handle_termination() -> None:
    """Install the handler for SIGTERM and SIGHUP, except for one that is ignored (`nohup`) or handled already."""
    for number in HANDLED:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, Termination())


def interrupted_code() -> int:
    """Exit code of an interrupted process, as shells report it: 128 + signal number."""
    handlers = [signal.getsignal(number) for number in HANDLED]
    received = [one.received for one in handlers if isinstance(one, Termination) and one.received is not None]
    return 128 + (received[0] if received else signal.SIGINT)


def _discard_terminal_output() -> None:
    """Point standard output and error at /dev/null if they were terminals: writing to a closed one fails."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(null, stream)
    os.close(null)
