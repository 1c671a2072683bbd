"""What holds for every test: an environment without keys and stores of the machine, and no silent skips in CI."""

import io
import logging
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.store import Store

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job; what tests start would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)

PERSONAL = (
    "OPENAI_API_KEY",
    "DSRL_STORE",
    "MLFLOW_TRACKING_URI",
    "HF_TOKEN",
    "HYDRA_FULL_ERROR",
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "WANDB_MODE"),
    *(f"ELASTICSEARCH_{name}" for name in ("API_KEY", "USERNAME", "PASSWORD", "CA_FILE")),
)


@pytest.fixture(autouse=True)
def _impersonal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the keys, stores and servers of whoever runs it."""
    for name in PERSONAL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _audible() -> Generator[None]:
    """Hydra, run within a test, quiets the whole process: what comes after hears warnings again."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run's surroundings; what it says is in `context.progress.stream`."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Context(
        run_dir=tmp_path / "run",
        store=Store(tmp_path / "store"),
        calls=ReplyCache(tmp_path / "calls"),
        progress=Progress(io.StringIO()),
        scratch=scratch,
    )


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes don't name a test: those of an archive hold the second it was made in, and each worker makes its own."""
    return argname if isinstance(val, bytes) else None


UNPREPARED = ("DSRL_TEST_DATA", "DSRL_LONG")
"""Variables without which a test may be skipped: data that the project may not contain, and a quarter of an hour."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With DSRL_CI set, everything an end-to-end test needs was installed: one that is skipped has failed. Only data
    that the project may not contain can be missing."""
    report = yield
    wanting = [name for name in UNPREPARED if name in str(report.longrepr) and not os.environ.get(name)]
    if (
        report.skipped
        and not wanting
        and os.environ.get("DSRL_CI")
        and item.get_closest_marker("e2e")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
