"""A small quickstart run, shared by the tests that build on it."""

import os
from pathlib import Path

import pytest

from tests.e2e.runs import SMALL, Place


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of the quickstart's base model. Set `DSRL_CACHE` to reuse a trained one."""
    return Path(os.environ.get("DSRL_CACHE") or tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Place:
    """A folder in which the small quickstart has finished without interruption."""
    place = Place(tmp_path_factory.mktemp("finished"), cache)
    outcome = place.dsrl(*SMALL, "tracking.enabled=true", "hydra.run.dir=first")
    assert outcome.code == 0, outcome.err
    return place
