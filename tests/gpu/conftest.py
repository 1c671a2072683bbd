"""Tests that need a GPU, skipped without one: `make gpu`, or `python -m pytest tests/gpu -s`.

`DSRL_GPU_TINY=1` runs the same code with tiny models on the CPU.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.infra.gpus import visible_gpus
from tests.gpu.shapes import TINY

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder. Warnings are not errors here: the machine's libraries may have other versions."""
    no_gpu = pytest.mark.skip(reason="no GPU here, and not DSRL_GPU_TINY=1")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not visible_gpus().names and not TINY:
                item.add_marker(no_gpu)


Say = Callable[..., None]


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """Print measurements, and append them as JSON lines to the file named by `DSRL_FIGURES`."""
    started = time.monotonic()

    def tell(what: str, **figures: object) -> None:
        row = {"what": what, **figures, "at": round(time.monotonic() - started, 1)}
        print("\nFIGURES", json.dumps(row), flush=True)
        if path := os.environ.get("DSRL_FIGURES"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    return tell
