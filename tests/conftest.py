"""What holds for every test: an environment without keys and stores of the machine, and no silent skips in CI."""

import os
from collections.abc import Generator

import pytest

PERSONAL = ("OPENAI_API_KEY", "DSRL_STORE", "MLFLOW_TRACKING_URI", "HF_TOKEN", "HYDRA_FULL_ERROR")


@pytest.fixture(autouse=True)
def _impersonal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the keys, stores and servers of whoever runs it."""
    for name in PERSONAL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With DSRL_CI set, everything an end-to-end test needs was installed: one that is skipped has failed."""
    report = yield
    if (
        report.skipped
        and os.environ.get("DSRL_CI")
        and item.get_closest_marker("e2e")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
