"""Faults and the batch API do not change the data."""

from pathlib import Path
from typing import Any

import pytest

from dsrl.llm import Endpoint
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate import Generate, MajorityVote
from tests.stages.generate.test_generate import run_stage
from tests.support.faultserver import Faults, serve

pytestmark = pytest.mark.e2e

THIRTY_PERCENT = {
    "500": 0.06,
    "429": 0.05,
    "drop": 0.05,
    "cut": 0.04,
    "truncated": 0.04,
    "malformed": 0.03,
    "fewer": 0.03,
}


def made(folder: Path, faults: Faults, stop: str = "certain", **endpoint: Any) -> tuple[PipelineState, dict[str, Any]]:
    """The result of `generate` with a server of these faults, and its spending."""
    folder.mkdir()
    with serve(faults) as server:
        usual: dict[str, Any] = {"concurrency": 16, "backoff": 0.01, "max_retries": 30, "takes_batch": True}
        teacher = Endpoint(model="offline-rules-v1", base_url=server.url, **{**usual, **endpoint})
        vote = MajorityVote(teacher=teacher, votes=8, stop=stop)  # type: ignore[arg-type]
        found, context = run_stage(Generate(teacher=teacher, n=20, verify=(vote,)), folder)
    return found, dict(context.ledger.totals()["teacher"])


@pytest.mark.parametrize("stop", ["certain", "lead"])
def test_thirty_percent_faults_change_nothing_but_the_number_of_requests(stop: str, tmp_path: Path) -> None:
    plain, calm = made(tmp_path / "calm", Faults(answer="quickstart"), stop)
    found, storm = made(tmp_path / "storm", Faults(answer="quickstart", shares=THIRTY_PERCENT, retry_after=0.05), stop)
    assert found == plain
    assert storm["errors"] == 0
    assert storm["requests"] > calm["requests"]


def test_a_batch_changes_nothing_but_the_votes_paid_for(tmp_path: Path) -> None:
    plain, waves = made(tmp_path / "waves", Faults(answer="quickstart"))
    found, batch = made(tmp_path / "batch", Faults(answer="quickstart"), batch=True)
    assert found == plain
    assert batch["batch_requests"] == batch["requests"]
    assert batch["completions"] > waves["completions"]
