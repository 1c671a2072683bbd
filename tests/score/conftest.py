import io
from pathlib import Path

import pytest

from dsrl.context import Context
from dsrl.llm import CallsStore
from dsrl.progress import Progress
from dsrl.store import Store


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run's surroundings; what it says is in `context.progress.stream`."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Context(
        run_dir=tmp_path / "run",
        store=Store(tmp_path / "store"),
        calls=CallsStore(tmp_path / "calls"),
        progress=Progress(io.StringIO()),
        stage="score",
        scratch=scratch,
    )
