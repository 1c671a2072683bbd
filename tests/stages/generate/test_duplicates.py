"""Candidates that nearly equal an earlier sample."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.data.overlap.near_duplicates import NearDuplicates
from dsrl.data.sample import Provenance, new_sample
from dsrl.forecast.workload import ForecastState
from dsrl.llm import Endpoint, ReplyCache
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate import MajorityVote
from dsrl.stages.generate.candidate import Candidate
from dsrl.stages.generate.duplicates import NEAR_DUPLICATE, DuplicateFilter
from dsrl.stages.rewrite import Rewrite
from tests.llm.server import Json, serve
from tests.stages.generate.test_generate import TASK, probed, run_stage, state, writer

WORDS = tuple(f"word{number}" for number in range(400))


def text(number: int, changed: int = 0) -> str:
    """Thirty words that differ from number to number; the last `changed` of them are replaced."""
    chosen = random.Random(number).sample(WORDS, 30)
    return " ".join(chosen[: 30 - changed] + [f"new{number}" for _ in range(changed)])


def repeating(body: Json, choice: int) -> str:
    """Every third draft nearly equals the one before the last; all votes agree."""
    prompt = body["messages"][-1]["content"]
    if "Describe in general terms" in prompt:
        return json.dumps({"pattern": "sums"})
    found = re.search(r"sample number (\d+)", prompt)
    if not found:
        return "#### 2"
    number = int(found[1]) - 1
    said = text(number - 2, changed=2) if number % 3 == 2 else text(number)
    return json.dumps({"input": said, "output": "#### 2"})


def generated(folder: Path, concurrency: int, near: float | None = 0.8) -> tuple[PipelineState, list[Json]]:
    with serve(answer=repeating) as script:
        teacher = Endpoint(model="m", base_url=script.url, concurrency=concurrency)
        return run_stage(writer(teacher, n=8, votes=2, near_duplicates=near), folder)[0], script.bodies


def test_a_near_duplicate_is_rejected_before_the_vote(tmp_path: Path) -> None:
    found, bodies = generated(tmp_path, 1)
    assert [sample.provenance.index for sample in found.samples] == [0, 1, 3, 4, 6, 7, 9, 10]
    assert [(row.reason, row.provenance.index) for row in found.rejected] == [
        (NEAR_DUPLICATE, 2),
        (NEAR_DUPLICATE, 5),
        (NEAR_DUPLICATE, 8),
    ]
    first = found.rejected[0]
    similarity, sample = re.fullmatch(r"(0\.\d\d) alike: sample (\w+)", first.detail).groups()  # type: ignore[union-attr]
    assert sample == found.samples[0].id
    assert float(similarity) >= 0.8
    assert (first.votes, first.answer, first.input) == (None, None, text(0, changed=2))
    asked = [body["messages"][-1]["content"] for body in bodies]
    assert not [prompt for prompt in asked if prompt == TASK.prompt(text(0, changed=2))]


@pytest.mark.parametrize("concurrency", [2, 5, 32])
def test_the_result_does_not_depend_on_concurrency(concurrency: int, tmp_path: Path) -> None:
    """With many in flight some near-duplicates are voted on in vain; the record is the same."""
    alone, _ = generated(tmp_path / "alone", 1)
    together, _ = generated(tmp_path / "together", concurrency)
    assert together == alone


def test_without_a_threshold_only_equal_inputs_are_duplicates(tmp_path: Path) -> None:
    found, _ = generated(tmp_path, 4, near=None)
    assert [sample.provenance.index for sample in found.samples] == list(range(8))


def rewritten(folder: Path, said: Callable[[int], str]) -> PipelineState:
    """Two solved samples, each made harder."""
    pool = tuple(
        new_sample("quickstart", text(number), "1", "initial").replace(probe=probed(0, 1).probe) for number in range(2)
    )

    def answer(body: Json, choice: int) -> str:
        prompt = body["messages"][-1]["content"]
        place = next((place for place in range(2) if text(place) in prompt), None)
        writes = '"input"' in prompt and place is not None
        return json.dumps({"input": said(place), "output": "#### 2"}) if writes else "#### 2"  # type: ignore[arg-type]

    with serve(answer=answer) as script:
        teacher = Endpoint(model="m", base_url=script.url, concurrency=1)
        stage = Rewrite(teacher=teacher, near_duplicates=0.8, verify=(MajorityVote(teacher=teacher, votes=1),))
        return run_stage(stage, folder, state(samples=pool))[0]


def test_a_rewrite_may_resemble_only_its_parent(tmp_path: Path) -> None:
    found = rewritten(tmp_path / "own", lambda place: text(place, changed=1))
    assert (len(found.samples), found.rejected) == (4, ())
    found = rewritten(tmp_path / "other", lambda place: text(1 - place, changed=1))
    assert [row.reason for row in found.rejected] == [NEAR_DUPLICATE, NEAR_DUPLICATE]


def test_an_equal_text_is_no_near_duplicate() -> None:
    known = [new_sample("t", text(1), "1", "initial")]
    duplicates = DuplicateFilter(0.8, samples=known)

    def candidate(words: str) -> Candidate:
        return Candidate(words, "", "initial", Provenance(calls=("a:0", "b:0")))

    assert duplicates.near_duplicate_of(candidate(text(1).upper()), "generate") is None
    rejected = duplicates.near_duplicate_of(candidate(text(1, changed=1)), "generate")
    assert rejected is not None
    assert rejected.provenance.calls == ("a:0",)
    assert DuplicateFilter(None, samples=known).near_duplicate_of(candidate(text(1, changed=1)), "generate") is None


def test_a_forecast_counts_near_duplicates_as_finished(tmp_path: Path) -> None:
    """With every reply cached nothing is left to request: candidates without votes are no gaps."""
    with serve(answer=repeating) as script:
        teacher = Endpoint(model="m", base_url=script.url, concurrency=1)
        stage = writer(teacher, n=8, votes=2, near_duplicates=0.8)
        run_stage(stage, tmp_path)
        load = stage.forecast(ForecastState(state(), ReplyCache(tmp_path / "store" / "calls"))).workload
    assert load is not None
    assert (load.requests.high, load.cached.completions) == (0.0, 1 + 11 + 8 * 2)


def test_minhash_separates_pairs_at_the_threshold() -> None:
    """Pairs with a known similarity are separated at 0.8, and equal texts are found."""
    near = NearDuplicates(0.8)
    assert near.add_if_new(text(0))
    assert not near.add_if_new(text(0))
    kept = [NearDuplicates(0.8) for _ in range(60)]
    for number, one in enumerate(kept):
        one.add_if_new(text(number))
    assert sum(one.add_if_new(text(number, changed=1)) for number, one in enumerate(kept)) <= 2  # similarity 0.93
    assert sum(one.add_if_new(text(number, changed=8)) for number, one in enumerate(kept)) >= 58  # 0.57
