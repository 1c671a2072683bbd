"""Forward dsrl's log messages to the progress display: Hydra, as configured here, shows none."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

ROOT = "dsrl"


class Reporter(Protocol):
    """`Progress`."""

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


class LogForwarder(logging.Handler):
    """Forwards log records as progress lines and warnings."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        report = self._reporter.warn if record.levelno >= logging.WARNING else self._reporter.say
        report(record.getMessage())


@contextmanager
def forward_logs(reporter: Reporter) -> Iterator[None]:
    """Within the block, forward the messages of dsrl's loggers to `reporter`."""
    logger, handler = logging.getLogger(ROOT), LogForwarder(reporter)
    for name in list(logging.root.manager.loggerDict):
        if name == ROOT or name.startswith(f"{ROOT}."):
            logging.getLogger(name).disabled = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
