"""Fixtures for all tests: an environment without the user's keys and stores, and no silent skips in CI."""

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

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job; child processes would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

PERSONAL = (
    "OPENAI_API_KEY",
    "DSRL_STORE",
    "MLFLOW_TRACKING_URI",
    "HF_TOKEN",
    "HYDRA_FULL_ERROR",
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "WANDB_MODE"),
    *(
        f"{product}_{name}"
        for product in ("ELASTICSEARCH", "OPENSEARCH")
        for name in ("API_KEY", "USERNAME", "PASSWORD", "CA_FILE", "CA_FINGERPRINT")
    ),
)


@pytest.fixture(autouse=True)
def _hide_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's API keys, stores and servers from the tests."""
    for name in PERSONAL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _restore_log_level() -> Generator[None]:
    """Undo the log level that Hydra sets for the whole process."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run's context. Progress lines go to `context.progress.stream`."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Context(
        run_dir=tmp_path / "run",
        store=Store(tmp_path / "store"),
        reply_cache=ReplyCache(tmp_path / "calls"),
        progress=Progress(io.StringIO()),
        scratch=scratch,
    )


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep bytes out of test ids: archives contain their creation time, so ids would differ between xdist workers."""
    return argname if isinstance(val, bytes) else None


OPTIONAL = ("DSRL_TEST_DATA", "DSRL_TEST_SEARCH_SERVERS", "DSRL_LONG")
"""Variables without which a test may be skipped: data and servers that we may not ship, and tests of 15 minutes."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report skipped end-to-end tests as failed if DSRL_CI is set, because CI installs everything they need."""
    report = yield
    missing = [name for name in OPTIONAL if name in str(report.longrepr) and not os.environ.get(name)]
    if (
        report.skipped
        and not missing
        and os.environ.get("DSRL_CI")
        and item.get_closest_marker("e2e")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
