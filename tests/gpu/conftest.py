"""What needs a GPU: skipped elsewhere. `make gpu`, or `python -m pytest tests/gpu -s`.

`DSRL_GPU_TINY=1` runs the same tests with tiny models on the CPU, to see that they still run.
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
    """Mark them all; warnings of other people's libraries on other people's versions are no failures here."""
    absent = pytest.mark.skip(reason="no GPU here, and not DSRL_GPU_TINY=1")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not visible_gpus().names and not TINY:
                item.add_marker(absent)


Say = Callable[..., None]


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """Print figures, and add them to the file named by `DSRL_FIGURES`, a JSON object a line."""
    started = time.monotonic()

    def tell(what: str, **figures: object) -> None:
        row = {"what": what, **figures, "at": round(time.monotonic() - started, 1)}
        print("\nFIGURES", json.dumps(row), flush=True)
        if path := os.environ.get("DSRL_FIGURES"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    return tell
