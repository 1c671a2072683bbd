"""Worker processes for comparisons that may never end: one that takes too long is killed, the others go on."""

# Not concurrent.futures or pebble: their workers come from multiprocessing, which pickles, imports the caller's
# `__main__` again and refuses to start in daemonic processes such as a trainer's. And they limit wall time only: here
# the kernel ends a worker by its CPU time, so a busy machine doesn't decide who is right.

import atexit
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from queue import Empty, LifoQueue
from threading import BoundedSemaphore
from typing import Any

from dsrl.core import child_process
from dsrl.core.errors import StageFailed

START_SECONDS = 300.0
PATIENCE = 20.0
"""Wall seconds granted beyond five times the CPU seconds."""
MAX_WORKERS = 4
QUESTIONS_PER_WORKER = 32
"""Fewer questions than this are not worth the start of another worker."""


class Worker:
    """One process. It ends itself after the CPU seconds of a question; the wall clock is watched from here."""

    def __init__(self, module: str) -> None:
        self.process = child_process.start("dsrl.graders.worker", [module], Path(os.devnull), 1, subprocess.PIPE)
        self.unread = b""
        if self._read_line(START_SECONDS) is None:
            self.kill()
            raise StageFailed(
                f"the grading process of {module} doesn't start",
                next_step=f"`python -m dsrl.graders.worker {module}` shows why",
            )

    def ask(self, questions: Sequence[Any], seconds: float) -> list[Any]:
        """The answers up to the first question that exceeds its limits. Fewer than asked: this worker is dead."""
        assert self.process.stdin is not None
        answers: list[Any] = []
        try:
            self.process.stdin.write(json.dumps([seconds, list(questions)]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it died between two batches
            self.kill()
            return answers
        while len(answers) < len(questions):
            line = self._read_line(5 * seconds + PATIENCE)
            if line is None:
                self.kill()
                break
            answers.append(json.loads(line))
        return answers

    def kill(self) -> None:
        self.process.kill()
        child_process.stop(self.process)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def _read_line(self, seconds: float) -> bytes | None:
        """The next line; None if the process ends or the time is up."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                return None
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return line


class WorkerPool:
    """Up to `max_workers` workers for one module, started when first needed. Thread-safe."""

    def __init__(self, module: str, max_workers: int) -> None:
        self.module, self.max_workers = module, max_workers
        self.idle: LifoQueue[Worker] = LifoQueue()
        self.slots = BoundedSemaphore(max_workers)

    def ask(self, questions: Sequence[Any], seconds: float) -> list[Any]:
        """One answer per question; None where it took more than `seconds` of CPU time, or too much memory."""
        shares = min(self.max_workers, -(-len(questions) // QUESTIONS_PER_WORKER))
        if shares < 2:
            return self._serve(questions, seconds)
        with ThreadPoolExecutor(shares) as threads:
            parts = list(threads.map(lambda i: self._serve(questions[i::shares], seconds), range(shares)))
        return [parts[i % shares][i // shares] for i in range(len(questions))]

    def _serve(self, questions: Sequence[Any], seconds: float) -> list[Any]:
        answers: list[Any] = []
        with self.slots:
            while len(answers) < len(questions):
                worker = self._take_worker()
                answers += worker.ask(questions[len(answers) :], seconds)
                if worker.alive:
                    self.idle.put(worker)
                elif len(answers) < len(questions):
                    answers.append(None)
        return answers

    def _take_worker(self) -> Worker:
        while True:
            try:
                worker = self.idle.get_nowait()
            except Empty:
                return Worker(self.module)
            if worker.alive:
                return worker
            worker.kill()

    def close(self) -> None:
        """End the idle workers."""
        while not self.idle.empty():
            self.idle.get_nowait().kill()


def pool(module: str) -> WorkerPool:
    """This process's workers for a module with a function `answer`; a forked process gets its own."""
    return _pool(module, os.getpid())


@lru_cache
def _pool(module: str, process: int) -> WorkerPool:
    created = WorkerPool(module, max(1, min(MAX_WORKERS, os.cpu_count() or 1)))
    atexit.register(lambda: created.close() if os.getpid() == process else None)
    return created
