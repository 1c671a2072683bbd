"""SIGTERM, which batch systems, containers and `kill` send, ends a run as Ctrl-C does."""

import signal
from types import FrameType


class Termination:
    """A handler of SIGTERM."""

    received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What Ctrl-C would do at this moment, inside an event loop or outside of one."""
        self.received = True
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # Ctrl-C is ignored, as in a script's background job
            raise KeyboardInterrupt
        interrupt(number, frame)


def handle_termination() -> None:
    """From now on, unless SIGTERM is ignored or somebody else's."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, Termination())


def interrupted_code() -> int:
    """Exit code of a process that was interrupted: what a shell makes of the signal."""
    handler = signal.getsignal(signal.SIGTERM)
    terminated = isinstance(handler, Termination) and handler.received
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
