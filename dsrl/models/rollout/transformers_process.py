"""The parent's side of the child process that draws rollouts."""

import json
import subprocess
from pathlib import Path
from typing import Any

from dsrl.core import child_process
from dsrl.core.errors import StageFailed

MAX_TRIES = 2
"""A child that dies over a question is started once more."""


class RolloutProcess:
    """Answers questions one after the other; started at the first."""

    def __init__(self, log: Path, threads: int | None) -> None:
        self.log = log
        self.threads = threads
        self._child: child_process.Child | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Raises `StageFailed` where the child can't answer, or has died twice over it."""
        line, ending = json.dumps(question) + "\n", ""
        for _ in range(MAX_TRIES):
            answer = self._exchange(line)
            if answer.endswith("\n"):
                return self._checked(json.loads(answer))
            ending = self.close()
        raise StageFailed(
            "the rollout process died twice over the same prompts",
            got=f"{ending}; the end of {self.log}:\n{child_process.tail(self.log)}",
            next_step="lower rollout.batch_size if memory ran out, then run again: replies drawn so far are kept",
        )

    def close(self) -> str:
        """End the child, and its model with it; says how it ended."""
        if self._child is None:
            return ""
        child_process.stop(self._child)
        ending = child_process.end_in_words(self._child.returncode)
        self._child = None
        return ending

    def _exchange(self, line: str) -> str:
        """The child's answer; not a whole line where it died."""
        if self._child is None:
            self._child = child_process.start(
                "dsrl.models.rollout.transformers_worker", [], self.log, self.threads, subprocess.PIPE
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._child.stdout.readline()

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "failed" not in answer:
            return answer
        cure = "give a smaller rollout.batch_size" if answer["kind"] == "memory" else f"see {self.log}"
        what = "out of memory" if answer["kind"] == "memory" else "failed"
        raise StageFailed(f"drawing rollouts: {what}", got=answer["failed"], next_step=cure)
