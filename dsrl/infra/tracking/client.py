"""Send live metrics to the tracking child: written at once or dropped, never blocking."""

import json
import os
import select
import time
from typing import Any

from dsrl.core.child_process import Child, stop

TRACKING_SECRETS = ("MLFLOW_*", "DATABRICKS_*", "WANDB_*", "AWS_*", "AZURE_*", "GOOGLE_*")
"""Secrets of the child that logs: of tracking servers and of their artifact stores."""


class LiveMetrics:
    """Listener of `Progress`. A line of up to `PIPE_BUF` bytes goes into the child's pipe as a whole or not at all."""

    def __init__(self, process: Child) -> None:
        assert process.stdin is not None
        self.process = process
        self._pipe = process.stdin
        self._began = time.monotonic()
        self._left = False
        self.dropped = 0
        """Messages that were dropped because the pipe was full or closed."""
        os.set_blocking(self._pipe.fileno(), False)

    def __call__(self, message: dict[str, Any]) -> None:
        point = {"time": int(time.time() * 1000), "step": int(time.monotonic() - self._began)}
        line = json.dumps({"live": point | message}).encode() + b"\n"
        try:
            sent = not self._pipe.closed and len(line) <= select.PIPE_BUF and os.write(self._pipe.fileno(), line) > 0
        except (BlockingIOError, BrokenPipeError):
            sent = False
        self.dropped += not sent

    def end(self) -> None:
        """Let writes to the pipe block again."""
        if not self._pipe.closed:
            os.set_blocking(self._pipe.fileno(), True)

    def leave(self) -> None:
        """Leave the child alone: it logs what it has received and ends, even after this process."""
        self._left = True
        for pipe in (self._pipe, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        """Stop the child, unless it was left alone."""
        if not self._left:
            stop(self.process)
