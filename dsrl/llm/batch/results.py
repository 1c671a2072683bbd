"""Fetched results of batch jobs: read line by line when they are asked for, never whole."""

import os
from pathlib import Path

from dsrl.llm.batch.files import answers, result
from dsrl.llm.batch.journal import Job, Journal
from dsrl.llm.completions import Completions
from dsrl.llm.failures import CallError


class Results:
    """By job and custom id."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._places: dict[str, dict[str, tuple[Path, int, int]]] = {}

    def find(self, job: Job, name: str) -> Completions | CallError | None:
        """What the job says about a request; None: nothing."""
        if job.name not in self._places:
            self._places[job.name] = self._read(job)
        place = self._places[job.name].get(name)
        if place is None:
            return None
        path, offset, length = place
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return result(os.pread(descriptor, length, offset))
        finally:
            os.close(descriptor)

    def _read(self, job: Job) -> dict[str, tuple[Path, int, int]]:
        """An answer goes before an error."""
        output, errors = self._journal.results(job)
        return {name: (path, offset, length) for path in (errors, output) for name, offset, length in answers(path)}
