"""Self-Instruct, TarGEN and SynthLLM with the quickstart's teacher and with scripted ones."""

import asyncio
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed
from dsrl.data.model import Reply
from dsrl.data.sample import Passage, Provenance
from dsrl.forecast.run_forecast import RunForecaster
from dsrl.graders import Label, Number
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import Keys
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate import MajorityVote, OwnAnswer, SelfCorrection, SelfInstruct, SynthLlm, TarGen
from dsrl.stages.generate.base import TeacherGenerator
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.generate.self_instruct import rouge_l, tokenize
from tests.stages.generate.test_generate import TASK, offline
from tests.toys import context

PASSAGES = tuple(
    Passage(id=f"p{i}", text=text, source="s", offset=i, keyword="k", rank=i, score=1.0)
    for i, text in enumerate(
        (
            "Ada and Tom sell apples and baskets at the market stall.",
            "Mia packs baskets and bottles for the picnic.",
            "Leo counts bottles and boats at the harbour.",
        )
    )
)


def stage(kind: type[TeacherGenerator], n: int = 12, concurrency: int = 8, **fields: Any) -> TeacherGenerator:
    teacher = offline(concurrency=concurrency)
    verify: dict[type[TeacherGenerator], Any] = {
        SelfInstruct: OwnAnswer(),
        TarGen: SelfCorrection(teacher=teacher),
        SynthLlm: MajorityVote(teacher=teacher, votes=1),
    }
    return kind(teacher=teacher, n=n, verify=(verify[kind],), **fields)


def run_stage(
    made: TeacherGenerator, folder: Path, state: PipelineState | None = None
) -> tuple[PipelineState, Context]:
    surroundings = context(folder)
    surroundings.stage = made.name
    try:
        return made(state or PipelineState(task=TASK, passages=PASSAGES), surroundings), surroundings
    finally:
        surroundings.close()


KINDS = (SelfInstruct, TarGen, SynthLlm)


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_does_not_depend_on_concurrency(kind: type[TeacherGenerator], tmp_path: Path) -> None:
    rounds = {"round_size": 4} if kind is SelfInstruct else {}
    one, _ = run_stage(stage(kind, concurrency=1, **rounds), tmp_path / "one")
    many, where = run_stage(stage(kind, concurrency=16, **rounds), tmp_path / "many")
    assert one == many
    assert len(one.samples) == 12
    for sample in one.samples:
        assert sample.votes is None or sample.votes.planned == 1
        assert sample.solution is not None
        assert TASK.answer.grade(sample.solution, sample.answer).correct
    paid = where.ledger.totals()["teacher"]["requests"]
    again, second = run_stage(stage(kind, **rounds), tmp_path / "many")
    assert (again, second.ledger.totals()["teacher"]["requests"]) == (many, 0)
    assert paid


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in ("one", "many"):
        (tmp_path / name).mkdir()


@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_finds_cached_replies(kind: type[TeacherGenerator], tmp_path: Path) -> None:
    """With every reply cached, nothing is left to pay."""
    made = stage(kind, **({"round_size": 4} if kind is SelfInstruct else {}))
    state = PipelineState(task=TASK, passages=PASSAGES)
    where = context(tmp_path)
    keys = Keys(state)
    keys.update({"passages": "p"})

    def foreseen() -> Any:
        calls = where.reply_cache if where.reply_cache.folder.is_dir() else None
        return RunForecaster(where.store, keys, calls).run({"w": made}, state).rows["w"].workload

    before = foreseen()
    assert before.requests.expected >= 12 * (1 + (kind is not SelfInstruct) + (kind is TarGen))
    _, spent = run_stage(made, tmp_path)
    after = foreseen()
    assert after.requests.high == 0
    assert after.cached.completions == spent.ledger.totals()["teacher"]["completions"]


def test_self_instruct_shows_earlier_samples_and_rejects_similar_ones(tmp_path: Path) -> None:
    made = stage(SelfInstruct, n=24, round_size=6, max_similarity=0.6)
    found, where = run_stage(made, tmp_path)
    pool = [tokenize(text) for text in (*(demo.input for demo in TASK.demos), *(one.input for one in found.samples))]
    assert max(rouge_l(one, other) for i, one in enumerate(pool) for other in pool[:i] if i >= len(TASK.demos)) < 0.6
    assert {"too similar"} <= {one.reason for one in found.rejected}
    store = where.reply_cache
    shown = 0
    for sample in found.samples:
        request = store.request(sample.provenance.calls[0].rpartition(":")[0])
        assert request is not None
        prompt = request["messages"][-1]["content"]
        index = sample.provenance.index or 0
        earlier = [one for one in found.samples if (one.provenance.index or 0) < index // 6 * 6]
        used = [one for one in found.samples if f"Input:\n{one.input}\n" in prompt]
        assert len(used) == min(2, len(earlier))
        assert all(one in earlier for one in used)
        shown += len(used)
    assert shown > 20
    store.close()


def test_self_instruct_needs_demos(tmp_path: Path) -> None:
    bare = PipelineState(task=dataclasses.replace(TASK, num_demos=0))
    with pytest.raises(StageFailed, match="0 demos"):
        run_stage(stage(SelfInstruct), tmp_path, bare)


def test_targen_uses_its_contexts_in_turn(tmp_path: Path) -> None:
    found, where = run_stage(stage(TarGen, n=20, num_contexts=5), tmp_path)
    contexts = found.figures["contexts"]
    assert len(contexts) == 5
    for sample in found.samples:
        request = where.reply_cache.request(sample.provenance.calls[0].rpartition(":")[0])
        assert request is not None
        assert f"# Context\n{contexts[(sample.provenance.index or 0) % 5]}\n" in request["messages"][-1]["content"]
        assert len(sample.provenance.calls) == 3
    reasons = {verdict.reason for sample in found.samples for verdict in sample.verdicts}
    assert "confirmed" in reasons
    where.reply_cache.close()


def test_targen_uses_labels_in_turn(tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, answer=Label(labels=("yes", "no")))
    state = PipelineState(task=task)
    made = stage(TarGen, n=4, max_candidates=4, min_yield=0.0, num_contexts=2)
    with pytest.raises(StageFailed):  # the counting teacher knows no yes or no
        run_stage(made, tmp_path, state)
    where = context(tmp_path)
    asked = [where.reply_cache.request(path) for path in _requests(where)]
    told = [
        one["messages"][-1]["content"] for one in asked if one and "Instance seed" in one["messages"][-1]["content"]
    ]
    assert sum("must be: yes" in text for text in told) == sum("must be: no" in text for text in told) == 2


def _requests(where: Context) -> set[str]:
    where.reply_cache.refresh()
    text = "".join(path.read_text() for path in where.reply_cache.folder.glob("*.jsonl"))
    return set(re.findall(r'"([0-9a-f]{16,64})"', text))


def test_synthllm_combines_concepts_of_several_passages(tmp_path: Path) -> None:
    found, where = run_stage(stage(SynthLlm, n=12), tmp_path)
    assert found.figures["documents"] == 3
    assert found.figures["concepts"] >= 5
    prompts = []
    for sample in found.samples:
        request = where.reply_cache.request(sample.provenance.calls[0].rpartition(":")[0])
        assert request is not None
        prompts.append(request["messages"][-1]["content"])
    assert all("# Passage 2\n" in prompt for prompt in prompts)
    assert len({prompt.partition("# Concepts\n")[2].partition("\n")[0] for prompt in prompts}) > 3
    where.reply_cache.close()


def test_synthllm_needs_passages(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="no concepts to recombine"):
        run_stage(stage(SynthLlm), tmp_path, PipelineState(task=TASK))


class Once:
    """A client with one reply."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    async def complete(self, request: object, count: int = 1, first: int = 0) -> list[Reply]:
        return [Reply(text=self.text, error=None if self.text else "down", call="c:0")]


async def outcome(text: str | None) -> Candidate | Refusal:
    candidate = Candidate("1+1?", "#### 2", "initial", Provenance())
    task = dataclasses.replace(TASK, answer=Number(marker="####"))
    return await SelfCorrection(teacher=offline()).verify(candidate, task, Once(text))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "answer", "reason"),
    [
        ("1+1=2 #### 2", "2", "confirmed"),
        ("1+1=2, not 3 #### 3", "3", "corrected"),
        ("I can't tell.", None, "no readable correction"),
        (None, None, "calls failed"),
    ],
)
def test_self_correction(text: str | None, answer: str | None, reason: str) -> None:
    found = asyncio.run(outcome(text))
    if isinstance(found, Refusal):
        assert (found.reason, answer) == (reason, None)
    else:
        assert (found.answer, found.verdicts[-1].reason, found.solution) == (answer, reason, text)


def test_own_answer_must_be_readable() -> None:
    def verified(output: str) -> Candidate | Refusal:
        candidate = Candidate("1+1?", output, "initial", Provenance())
        return asyncio.run(OwnAnswer().verify(candidate, TASK, None))  # type: ignore[arg-type]

    assert verified("#### 2").answer == "2"  # type: ignore[union-attr]
    assert verified("two, I think").reason == "no readable answer"  # type: ignore[union-attr]
