"""What rooms log reaches whoever watches the run: Hydra, as it is set up here, shows nothing by itself."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

ROOT = "dsrl"


class Warner(Protocol):
    """A run's `Progress`."""

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


class Notices(logging.Handler):
    """Hands news and warnings on."""

    def __init__(self, warner: Warner) -> None:
        super().__init__(logging.INFO)
        self._warner = warner

    def emit(self, record: logging.LogRecord) -> None:
        tell = self._warner.warn if record.levelno >= logging.WARNING else self._warner.say
        tell(record.getMessage())


@contextmanager
def forward_logs(warner: Warner) -> Iterator[None]:
    """Within the block, what dsrl's own loggers say is told to `warner`."""
    logger, handler = logging.getLogger(ROOT), Notices(warner)
    for name in list(logging.root.manager.loggerDict):
        if name == ROOT or name.startswith(f"{ROOT}."):
            logging.getLogger(name).disabled = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
