import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.resources import home
from dsrl.data.sample import Passage, Rate, Sample, new_sample
from dsrl.data.task import Task
from dsrl.llm import Endpoint
from dsrl.pipeline.config import build
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.quickstart import OfflineTeacher
from dsrl.stages.generate import Generate, MajorityVote
from dsrl.stages.rewrite import Rewrite
from tests.llm.server import Json, serve
from tests.toys import context, said

TASK: Task = build(yaml.safe_load((home() / "conf" / "task" / "quickstart.yaml").read_text(encoding="utf-8")), "task")
PASSAGES = tuple(
    Passage(id=f"p{i}", text=f"{word} are sold at the market.", source="s", offset=i, keyword=word, rank=i, score=1.0)
    for i, word in enumerate(("Apples", "Boats", "Candles"))
)


def offline(**fields: Any) -> Endpoint:
    return Endpoint(
        model="offline-rules-v1", server=OfflineTeacher(busy=0.0), **{"concurrency": 8, "backoff": 0.0, **fields}
    )


def writer(teacher: Endpoint, n: int = 6, votes: int = 5, **fields: Any) -> Generate:
    return Generate(teacher=teacher, n=n, verify=(MajorityVote(teacher=teacher, votes=votes),), **fields)


def state(**fields: Any) -> PipelineState:
    return PipelineState(task=TASK, passages=PASSAGES, **fields)


def run_stage(
    stage: Generate | Rewrite, folder: Path, start: PipelineState | None = None
) -> tuple[PipelineState, Context]:
    surroundings = context(folder)
    surroundings.stage = stage.name
    try:
        return stage(start or state(), surroundings), surroundings
    finally:
        surroundings.close()


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> PipelineState:
    return run_stage(writer(offline(), n=12), tmp_path_factory.mktemp("generated"))[0]


def test_a_sample_records_its_provenance(generated: PipelineState) -> None:
    assert len(generated.samples) == 12
    for place, sample in enumerate(generated.samples):
        origin = sample.provenance
        assert origin.index is not None
        assert origin.index >= place
        passage = PASSAGES[origin.index % len(PASSAGES)]
        assert (origin.passage, origin.keyword) == (passage.id, passage.keyword)
        assert len(set(origin.demos)) == 3
        assert origin.teacher == "offline-rules-v1"
        assert sample.votes is not None
        assert len(origin.calls) >= 1 + sample.votes.asked
        assert sample.solution is not None
        assert TASK.answer.grade(sample.solution, sample.answer).correct
    assert len({sample.id for sample in generated.samples}) == 12


def test_every_candidate_is_a_sample_or_a_rejection(generated: PipelineState) -> None:
    rows = generated.figures["rows"]
    assert rows == {"in": len(generated.samples) + len(generated.rejected), "out": len(generated.samples)}
    numbers = [entry.provenance.index for entry in (*generated.samples, *generated.rejected)]
    assert sorted(numbers) == list(range(rows["in"]))  # type: ignore[type-var]


@pytest.mark.parametrize("concurrency", [1, 3, 32])
def test_the_result_does_not_depend_on_concurrency(generated: PipelineState, concurrency: int, tmp_path: Path) -> None:
    found, _ = run_stage(writer(offline(concurrency=concurrency), n=12), tmp_path)
    assert found == generated


def test_a_larger_n_extends_a_smaller_one_and_pays_only_for_the_rest(generated: PipelineState, tmp_path: Path) -> None:
    few, first = run_stage(writer(offline(), n=5), tmp_path)
    assert few.samples == generated.samples[:5]
    again, second = run_stage(writer(offline(), n=12), tmp_path)
    assert again.samples == generated.samples
    spent = [surroundings.ledger.totals()["teacher"]["completions"] for surroundings in (first, second)]
    whole = sum(len(entry.provenance.calls) for entry in (*generated.samples, *generated.rejected)) + 1
    assert sum(spent) == whole  # type: ignore[arg-type]
    _, third = run_stage(writer(offline(), n=12), tmp_path)
    assert third.ledger.totals()["teacher"]["requests"] == 0


def test_another_seed_shows_other_demos(tmp_path: Path) -> None:
    shown = []
    for seed in (0, 1):
        found, _ = run_stage(writer(offline(), n=8, demos_per_prompt=1, seed=seed), tmp_path)
        shown.append([sample.provenance.demos for sample in found.samples])
    assert shown[0] != shown[1]
    assert len(set(shown[0])) > 1


def test_another_seed_gives_other_samples_for_equal_prompts(tmp_path: Path) -> None:
    inputs = []
    for seed in (0, 1):
        found, _ = run_stage(writer(offline(), n=4, demos_per_prompt=len(TASK.demos), seed=seed), tmp_path)
        inputs.append({sample.input for sample in found.samples})
    assert not inputs[0] & inputs[1]


def scripted(draft: Callable[[int], str], vote: Callable[[int], str] = lambda seed: "#### 2") -> Callable[..., str]:
    """A scripted teacher: `draft` gets the number of the draft, `vote` the number of the choice."""
    numbers: Counter[str] = Counter()

    def answer(body: Json, choice: int) -> str:
        prompt = body["messages"][-1]["content"]
        if "Describe in general terms" in prompt:
            return json.dumps({"pattern": "sums"})
        if '"input"' in prompt or "can't be used" in prompt:
            numbers["drafts"] += 1
            return draft(numbers["drafts"] - 1)
        return vote(choice)

    return answer


def story(number: int) -> str:
    return json.dumps({"input": f"Story {number}?", "output": "#### 2"})


def test_an_unparsable_draft_is_repaired_once_then_rejected(tmp_path: Path) -> None:
    said_so_far = ["no JSON", "still none", json.dumps({"input": "only"}), story(7)]
    with serve(answer=scripted(lambda number: said_so_far[number])) as script:
        stage = writer(Endpoint(model="m", base_url=script.url, concurrency=1), n=1, votes=1)
        found, _ = run_stage(stage, tmp_path)
    assert [sample.input for sample in found.samples] == ["Story 7?"]
    (refused,) = found.rejected
    assert refused.reason == "not JSON"
    assert len(refused.provenance.calls) == 2


def test_too_few_samples_give_a_warning_with_reasons(tmp_path: Path) -> None:
    with serve(answer=scripted(lambda number: story(number % 2))) as script:
        stage = writer(Endpoint(model="m", base_url=script.url, concurrency=1), n=3, votes=1, max_candidates=5)
        found, surroundings = run_stage(stage, tmp_path)
    assert len(found.samples) == 2
    assert "WARNING generate: 2 of 3 samples after 5 candidates (3 x duplicate)" in said(surroundings)


def test_no_sample_at_all_fails_the_stage(tmp_path: Path) -> None:
    with serve(answer=scripted(story, vote=lambda choice: "who knows")) as script:
        stage = writer(Endpoint(model="m", base_url=script.url), n=2, votes=2)
        with pytest.raises(StageFailed, match="0 of 2 samples after 8 candidates") as caught:
            run_stage(stage, tmp_path)
    assert "8 x no readable vote" in str(caught.value)


def test_too_many_duplicates_in_a_row_fail_the_stage(tmp_path: Path) -> None:
    with serve(answer=scripted(lambda number: story(min(number, 2)))) as script:
        stage = writer(Endpoint(model="m", base_url=script.url, concurrency=1), n=500, votes=1)
        with pytest.raises(StageFailed, match="giving up after 53 candidates: 50 duplicates in a row") as caught:
            run_stage(stage, tmp_path)
        asked = len(script.bodies)
    said_then = str(caught.value)
    assert "3 of 500 accepted; 50 x duplicate" in said_then
    assert "Story 2?" in said_then
    assert "generate.temperature" in said_then
    assert asked < 1 + 2 * (53 + 8)
    assert caught.value.exit_code == 3
    cure = {"min_yield": 0.0, "max_repeats": None, "max_candidates": 53}
    with serve(answer=lambda body, choice: pytest.fail("paid twice")) as script:
        again = writer(Endpoint(model="m", base_url=script.url, concurrency=4), n=500, votes=1, **cure)
        found, surroundings = run_stage(again, tmp_path)
        assert script.bodies == []
    assert [sample.input for sample in found.samples] == ["Story 0?", "Story 1?", "Story 2?"]
    assert "3 of 500 samples after 53 candidates" in said(surroundings)


def test_a_low_yield_fails_the_stage(tmp_path: Path) -> None:
    numbers = itertools.count()
    with serve(answer=scripted(story, vote=lambda choice: f"#### {next(numbers)}")) as script:
        stage = writer(Endpoint(model="m", base_url=script.url), n=300, votes=3)
        with pytest.raises(StageFailed, match="giving up after 100 candidates: 0 of 100") as caught:
            run_stage(stage, tmp_path)
    assert "100 x no majority" in str(caught.value)


def test_the_stop_rule_is_not_part_of_the_key() -> None:
    teacher = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")
    assert writer(teacher).key({}) == writer(teacher, min_yield=0.0, max_repeats=None).key({})
    assert writer(teacher).key({}) != writer(teacher, max_candidates=7).key({})


def test_a_blank_input_is_repaired(tmp_path: Path) -> None:
    blank = json.dumps({"input": " \n ", "output": "#### 2"})
    with serve(answer=scripted(lambda number: [blank, story(1)][number])) as script:
        stage = writer(Endpoint(model="m", base_url=script.url, concurrency=1), n=1, votes=1)
        found, _ = run_stage(stage, tmp_path)
    assert [sample.input for sample in found.samples] == ["Story 1?"]
    assert len(found.samples[0].provenance.calls) == 3


def test_a_missing_pattern_fails_before_any_candidate(tmp_path: Path) -> None:
    with serve(answer=lambda body, choice: "none") as script:
        with pytest.raises(StageFailed, match="pattern"):
            run_stage(writer(Endpoint(model="m", base_url=script.url)), tmp_path)
        assert len(script.bodies) == 2 * 3  # three completions, each with its repair turn


def test_the_contents_of_the_prompts(tmp_path: Path) -> None:
    with serve(answer=scripted(story)) as script:
        run_stage(writer(Endpoint(model="m", base_url=script.url), n=1, votes=1), tmp_path)
        prompts = [body["messages"][-1]["content"] for body in script.bodies]
    pattern, draft, vote = prompts
    assert all(demo.input in pattern for demo in TASK.demos)
    for piece in (TASK.instruction, "sums", PASSAGES[0].text, TASK.output_instruction):
        assert piece in draft
    assert sum(demo.input in draft for demo in TASK.demos) == 3
    assert vote == TASK.prompt("Story 0?")


def test_no_pattern_without_demos(tmp_path: Path) -> None:
    with serve(answer=scripted(story)) as script:
        start = PipelineState(task=dataclasses.replace(TASK, demos=()))
        found, _ = run_stage(writer(Endpoint(model="m", base_url=script.url), n=2, votes=1), tmp_path, start)
        assert len(script.bodies) == 4
    assert all(sample.provenance.passage is None for sample in found.samples)


def test_samples_without_a_label_are_refused(tmp_path: Path) -> None:
    with serve(answer=scripted(story)) as script:
        stage = Generate(teacher=Endpoint(model="m", base_url=script.url), n=1)
        with pytest.raises(UserError, match="no verifier labels the samples"):
            run_stage(stage, tmp_path)
    for unlabelled in (stage, Rewrite(teacher=stage.teacher)):
        with pytest.raises(UserError, match=f"{unlabelled.name}.verify"):
            unlabelled.check()
    Rewrite(teacher=stage.teacher, direction="none").check()


def probed(number: int, correct: int | None) -> Sample:
    """A sample that the base model solved (1), did not solve (0) or did not answer (None)."""
    rate = Rate(
        model="m",
        num_rollouts=1,
        num_valid=int(correct is not None),
        num_correct=correct or 0,
        num_error=int(correct is None),
        num_truncated=0,
        temperature=0.0,
        grader="g",
    )
    return new_sample("quickstart", f"Old story {number}?", "1", "initial").replace(probe=rate)


POOL = (
    probed(0, 1),
    probed(1, 0),
    probed(2, None),
    probed(3, 1),
    new_sample("quickstart", "Unprobed?", "1", "initial"),
)


def test_duplicate_rewrites_fail_the_stage(tmp_path: Path) -> None:
    pool = tuple(dataclasses.replace(probed(number, 1), probe=probed(0, 1).probe) for number in range(80))
    with serve(answer=scripted(lambda number: story(0))) as script:
        teacher = Endpoint(model="m", base_url=script.url, concurrency=4)
        stage = Rewrite(teacher=teacher, verify=(MajorityVote(teacher=teacher, votes=1),))
        with pytest.raises(StageFailed, match="rewrite: giving up after 51 candidates: 50 duplicates") as caught:
            run_stage(stage, tmp_path, state(samples=pool))
    assert "rewrite.direction=none" in str(caught.value)


def rewritten(tmp_path: Path, direction: str, draft: Callable[[int], str] = story) -> tuple[PipelineState, list[str]]:
    with serve(answer=scripted(draft)) as script:
        teacher = Endpoint(model="m", base_url=script.url, concurrency=1)
        stage = Rewrite(teacher=teacher, direction=direction, verify=(MajorityVote(teacher=teacher, votes=1),))  # type: ignore[arg-type]
        found, _ = run_stage(stage, tmp_path, state(samples=POOL))
        return found, [body["messages"][-1]["content"] for body in script.bodies]


@pytest.mark.parametrize(
    ("direction", "ways"),
    [
        ("both", {"harder": [0, 3], "easier": [1]}),
        ("harder", {"harder": [0, 3]}),
        ("easier", {"easier": [1]}),
        ("none", {}),
    ],
)
def test_solved_samples_get_harder_and_unsolved_ones_easier(
    direction: str, ways: dict[str, list[int]], tmp_path: Path
) -> None:
    found, prompts = rewritten(tmp_path, direction)
    assert found.samples[: len(POOL)] == POOL
    new = found.samples[len(POOL) :]
    parents = {way: [POOL[i].id for i in places] for way, places in ways.items()}
    assert {
        way: [sample.parent_id for sample in new if sample.origin == way] for way in {s.origin for s in new}
    } == parents
    assert all(sample.generation == 1 and sample.source_id == sample.parent_id for sample in new)
    assert len(prompts) == 2 * len(new)
    assert found.figures["rows"] == {"in": len(POOL), "out": len(POOL) + len(new)}


def test_a_rewrite_equal_to_a_sample_is_rejected(tmp_path: Path) -> None:
    old = [json.dumps({"input": "OLD  story 0?", "output": "#### 2"}), story(5), story(5)]
    found, _ = rewritten(tmp_path, "both", lambda number: old[number])
    assert [sample.input for sample in found.samples[len(POOL) :]] == ["Story 5?"]
    assert [(candidate.reason, candidate.parent_id) for candidate in found.rejected] == [
        ("duplicate", POOL[0].id),
        ("duplicate", POOL[3].id),
    ]
    assert [candidate.provenance.index for candidate in found.rejected] == [0, 2]
    assert all(len(candidate.provenance.calls) == 2 for candidate in found.rejected)


def shown(found: PipelineState, where: Context) -> list[str]:
    """The prompts of the samples."""
    prompts = []
    for sample in found.samples:
        request = where.reply_cache.request(sample.provenance.calls[0].rpartition(":")[0])
        assert request is not None
        prompts.append(request["messages"][-1]["content"])
    where.reply_cache.close()
    return prompts


def test_sparse_prompts_show_demos_and_pattern_together(tmp_path: Path) -> None:
    found, where = run_stage(writer(offline(), n=30, votes=1, demo_draw="sparse"), tmp_path)
    prompts = shown(found, where)
    with_demos = [bool(sample.provenance.demos) for sample in found.samples]
    assert 0 < sum(with_demos) <= 8, "three of thirty are expected"
    for prompt, some in zip(prompts, with_demos, strict=True):
        assert ("# Example 1" in prompt) == ("# Pattern of the samples" in prompt) == some


def test_prompts_without_pattern_show_demos(tmp_path: Path) -> None:
    found, where = run_stage(writer(offline(), n=4, votes=1, pattern=False), tmp_path)
    for prompt in shown(found, where):
        assert "# Example 3" in prompt
        assert "# Pattern" not in prompt


def test_prompts_without_passages_and_demos(tmp_path: Path) -> None:
    bare = PipelineState(task=dataclasses.replace(TASK, num_demos=0))
    found, where = run_stage(writer(offline(), n=4, votes=1), tmp_path, bare)
    for prompt in shown(found, where):
        assert not any(heading in prompt for heading in ("# Example", "# Pattern", "# Passage"))


def test_shuffled_passages_are_each_used_once(tmp_path: Path) -> None:
    many = tuple(dataclasses.replace(PASSAGES[0], id=f"q{i}", text=f"{i} apples.") for i in range(12))
    found, _ = run_stage(
        writer(offline(), n=12, votes=1, passage_order="shuffled"), tmp_path, PipelineState(task=TASK, passages=many)
    )
    places = [(sample.provenance.index, sample.provenance.passage) for sample in found.samples]
    first = [passage for index, passage in places if index is not None and index < 12]
    assert len(set(first)) == len(first)
    assert first != [f"q{index}" for index, _ in places][: len(first)]
