"""SynthRL's rewriting: real stage, real counter and grader, a scripted writer behind HTTP and a toy model."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet
import pytest

from dsrl.core.component import component
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Provenance, Rate, Sample, new_sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint
from dsrl.models.rollout.protocols import Question, Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate import MajorityVote
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.rewrite import HarderVariants, IntervalBand, PassBand, QualityJudge, SecondModel, SinglePass
from dsrl.stages.rewrite.synthrl.pass_band import lower_bound_of_drop
from dsrl.stages.rewrite.synthrl.stage import place_images
from dsrl.stages.score import PassCount
from dsrl.stages.seeds import Seeds
from tests.llm.server import Json, serve
from tests.toys import context, said

N = 16
SEED = "Seed question?"
TASK = Task(name="t", instruction="Count.", answer=Number())
RIGHT, WRONG = Reply(text="#### 4", finish_reason="stop"), Reply(text="#### 5", finish_reason="stop")
LOST, CUT = Reply(text=None, error="down"), Reply(text="#### 4 and", finish_reason="length")


class Named(Model):
    def fingerprint(self) -> str:
        return self.name


@component("tests.test_synthrl.Toy")
class Toy(Rollout):
    """A model whose reply i to a question is `says(question, i)`."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"says", "asked"})

    says: Any
    asked: Any = None

    def generate(
        self, model: Model, prompts: Sequence[str], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        questions = [prompt.removesuffix(f"\n\n{TASK.output_instruction}") for prompt in prompts]
        if self.asked is not None:
            self.asked.extend((model.name, question, count) for question in questions)
        return [[self.says(question, number) for number in range(count)] for question in questions]


def scripted(counts: dict[str, int], fresh: int = 9) -> Callable[[str, int], Reply]:
    """`counts[question]` of the first sixteen replies are correct, and `fresh` of each sixteen that follow."""
    return lambda question, number: RIGHT if number % N < (counts[question] if number < N else fresh) else WRONG


def counter(says: Callable[[str, int], Reply], **fields: Any) -> PassCount:
    return PassCount(**{"rollout": Toy(says=says), "rollouts": N, "spare": N, **fields})


def scored(says: PassCount, where: Context, *texts: str) -> PipelineState:
    samples = tuple(new_sample("t", text, "4", "seed") for text in texts or (SEED,))
    where.scratch = where.run_dir
    return says(PipelineState(task=TASK, base=Named(name="target", path="m"), samples=samples), where)


def writer(questions: Callable[[str, int], str], judge: Callable[[str], str] | None = None) -> Callable[..., str]:
    """A server that writes question k for the question it is shown, and judges."""
    numbers: Counter[str] = Counter()

    def answer(body: Json, choice: int) -> str:
        prompt = body["messages"][-1]["content"]
        if "# Rewritten question" in prompt or "can't be used" in prompt:
            return judge(prompt) if judge else json.dumps({"score": 9, "reason": "more steps"})
        old = shown(prompt)
        numbers[old] += 1
        return json.dumps({"question": questions(old, numbers[old] - 1)})

    return answer


def shown(prompt: str) -> str:
    """The question in a writer's prompt."""
    return prompt.partition("# Question to make harder\n")[2].partition("\n\n# What to do")[0]


def rewritten(
    folder: Path, answer: Callable[..., str], count: PassCount, state: PipelineState | None = None, **fields: Any
) -> tuple[PipelineState, Context, list[str]]:
    """The stage on seeds that were scored before; with the prompts that it sent."""
    where = context(folder)
    before = state or scored(count, where)
    with serve(answer=answer) as script:
        teacher = Endpoint(model="m", base_url=script.url, concurrency=4)
        verify = fields.pop("verify", None) or (QualityJudge(teacher=teacher), PassBand(counter=count))
        verify = tuple(one(teacher) if callable(one) else one for one in verify)
        stage = HarderVariants(teacher=teacher, counter=count, verify=verify, **fields)
        stage.check()
        after = stage(before, where)
        where.close()
        return after, where, [body["messages"][-1]["content"] for body in script.bodies]


SCRIPT = (10, 6, 9, 5, 3, 8, 7, 4)
"""Pass counts of eight attempts, as in the published code."""
COUNTS = {SEED: 14, **{f"v{number}": count for number, count in enumerate(SCRIPT, 1)}}


@pytest.mark.parametrize(
    ("stop", "chain", "kept", "starts"),
    [
        ("first", "parent", "v1", [SEED]),
        ("best", "parent", "v8", [SEED] * 8),
        ("best", "last_accepted", "v8", [SEED, "v1", "v2", "v3", "v4", "v4", "v6", "v7"]),
    ],
)
def test_scripted_pass_counts(stop: str, chain: str, kept: str, starts: list[str], tmp_path: Path) -> None:
    numbers = itertools.count(1)
    after, where, prompts = rewritten(
        tmp_path, writer(lambda *_: f"v{next(numbers)}"), counter(scripted(COUNTS)), stop=stop, chain=chain
    )
    seed, variant = after.samples
    assert (variant.input, variant.answer, variant.origin, variant.parent_id) == (kept, "4", "harder", seed.id)
    assert [shown(prompt) for prompt in prompts if "to make harder" in prompt] == starts
    assert variant.score is not None
    assert variant.score.num_correct == 9  # of fresh replies, not of those by which it was accepted
    assert after.figures["counts"] == {"seed": [14], "accepting": [COUNTS[kept]], "fresh": [9]}
    reasons = sorted(one.reason for one in after.rejected)
    assert reasons == ([] if stop == "first" else ["another variant was kept"] * 6 + ["too hard"])
    assert after.figures["attempts"] == len(starts)
    judged = len(starts)
    sound = 1 if stop == "first" else 7
    steps = [["a readable question", judged], ["a new one that hides its answer", judged], ["QualityJudge", judged]]
    assert after.figures["funnel"] == [*steps, ["PassBand", sound]]
    replies = pyarrow.parquet.ParquetFile(where.scratch / "rollouts.parquet").read().to_pylist()
    assert {row["sample"] for row in replies} == {variant.id}
    assert (len(replies), sum(row["correct"] for row in replies), replies[0]["index"]) == (N, 9, N)


def test_check_refuses_contradictory_settings() -> None:
    count = counter(scripted({}))
    teacher = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")
    stage: dict[str, Any] = {"teacher": teacher, "counter": count, "verify": (PassBand(counter=count),)}
    HarderVariants(**stage).check()
    for wrong, words in (
        ({"chain": "last_accepted"}, "has no effect with rewrite.stop=first"),
        ({"stop": "best", "verify": ()}, "nothing in `verify` counts"),
        ({"min_correct": 17}, "no seed can reach it"),
    ):
        with pytest.raises(UserError, match=words):
            HarderVariants(**{**stage, **wrong}).check()
    with pytest.raises(UserError, match="4 of 3 rollouts"):
        PassBand(counter=counter(scripted({}), rollouts=3)).check()


def test_prompts_hide_the_answer(tmp_path: Path) -> None:
    count = counter(scripted({"How many?": 16, "v": 8}))
    where = context(tmp_path)
    samples = (new_sample("t", "How many?", "987123", "seed"),)
    rate = Rate(
        model="m",
        num_rollouts=16,
        num_valid=16,
        num_correct=16,
        num_error=0,
        num_truncated=0,
        temperature=1.0,
        grader="g",
    )
    state = PipelineState(
        task=TASK, base=Named(name="t", path="m"), samples=tuple(s.replace(score=rate) for s in samples)
    )
    _, _, prompts = rewritten(tmp_path, writer(lambda *_: "v"), count, state)
    where.close()
    assert len(prompts) >= 2
    assert not any("987123" in prompt for prompt in prompts)


def fails(share: float) -> Callable[[str, int], Reply]:
    """Correct whenever a reply comes at all."""

    def says(question: str, number: int) -> Reply:
        return LOST if random.Random(f"{question} {number}").random() < share else RIGHT

    return says


def test_failed_calls_never_make_a_question_harder(tmp_path: Path) -> None:
    """The published code accepts all eight attempts here."""
    texts = [f"Seed {number}?" for number in range(20)]
    whole = counter(lambda question, number: RIGHT)
    where = context(tmp_path)
    before = scored(whole, where, *texts)
    where.close()
    # The same question with a filler more each time.
    after, _, _ = rewritten(
        tmp_path,
        writer(lambda old, number: f"{old}{' Really.' * (number + 1)}"),
        counter(fails(0.6)),
        before,
        verify=(lambda teacher: PassBand(counter=counter(fails(0.6))),),
        min_yield=0.0,
    )
    assert after.samples == before.samples
    assert after.figures["attempts"] == len(after.rejected) == 160
    assert {one.reason for one in after.rejected} == {"undecided", "not harder"}


@pytest.mark.parametrize("missing", [LOST, CUT])
def test_failed_and_truncated_replies_are_replaced(missing: Reply, tmp_path: Path) -> None:
    where = context(tmp_path)
    state = PipelineState(task=TASK, base=Named(name="m", path="m"))
    says = lambda question, number: missing if number < 5 else RIGHT if number % 2 else WRONG  # noqa: E731
    (rate,) = counter(says).count([Question("q", "4")], state, where)
    assert (rate.num_rollouts, rate.num_valid, rate.num_correct) == (21, 16, 8)
    assert rate.num_error + rate.num_truncated == 5
    (short,) = counter(says, spare=4).count([Question("q", "4")], state, where)
    assert (short.num_rollouts, short.num_valid) == (20, 15)
    (fresh,) = counter(says).count([Question("q", "4", num_consumed=21)], state, where)
    assert (fresh.num_rollouts, fresh.num_correct) == (16, 8)
    where.close()


def test_only_needed_replies_are_generated(tmp_path: Path) -> None:
    where, asked = context(tmp_path), []
    count = PassCount(rollout=Toy(says=lambda *_: RIGHT, asked=asked), rollouts=N, spare=N)
    count.count(
        [Question("a", "4"), Question("b", "4", num_consumed=16)], PipelineState(task=TASK, base=Named(name="m")), where
    )
    assert asked == [("m", "a", 16), ("m", "b", 32)]
    where.close()


def rate(correct: int, n: int = N, **fields: int) -> Rate:
    numbers = {"num_rollouts": n, "num_valid": n, "num_correct": correct, "num_error": 0, "num_truncated": 0}
    return Rate(model="m", temperature=1.0, grader="g", **{**numbers, **fields})


@pytest.mark.parametrize(
    ("seed", "variant", "harder"), [(16, 14, True), (16, 15, False), (12, 10, True), (12, 12, False)]
)
def test_pass_band_margin(seed: int, variant: int, harder: bool) -> None:
    assert (PassBand(counter=counter(scripted({}))).refusal(rate(seed), rate(variant)) == "") is harder


def test_interval_band() -> None:
    band = IntervalBand(counter=counter(scripted({})))
    assert band.refusal(rate(16), rate(14)) != ""
    assert band.refusal(rate(16), rate(8)) == ""
    assert band.refusal(rate(64, 64), rate(56, 64)) == ""  # more replies, more certainty
    # Newcombe's own example (1998, table II, 56/70 against 48/80, method 10): 0.0524 to 0.3339
    assert lower_bound_of_drop(rate(56, 70), rate(48, 80), 0.95) == pytest.approx(0.0524, abs=5e-5)


def test_a_second_band_uses_fresh_replies(tmp_path: Path) -> None:
    """The first sixteen replies look harder by chance; the next sixteen of seed and variant don't."""
    says = lambda question, number: WRONG if question == "v" and number in (1, 2, 3) else RIGHT  # noqa: E731
    band = PassBand(counter=counter(says))
    once, _, _ = rewritten(tmp_path / "a", writer(lambda *_: "v"), counter(says), verify=(band,), attempts=1)
    assert [sample.input for sample in once.samples] == [SEED, "v"]
    assert once.samples[1].score is not None
    assert once.samples[1].score.num_correct == 16
    twice, _, _ = rewritten(tmp_path / "b", writer(lambda *_: "v"), counter(says), verify=(band, band), attempts=1)
    assert [one.reason for one in twice.rejected] == ["not harder"]
    assert "16 of 16, the seed 16 of 16" in twice.rejected[0].detail


def test_single_pass_needs_one_correct_reply(tmp_path: Path) -> None:
    says = scripted({SEED: 14, "v": 16})
    single = SinglePass(counter=counter(says, rollouts=1))
    after, _, _ = rewritten(tmp_path, writer(lambda *_: "v"), counter(says), verify=(single,))
    assert len(after.samples) == 2  # though it isn't harder


def test_a_band_can_ask_another_model(tmp_path: Path) -> None:
    asked: list[Any] = []
    says = scripted({SEED: 14, "v": 8})
    other = PassCount(rollout=Toy(says=says, asked=asked), rollouts=N)
    band = PassBand(counter=other, model=Named(name="other", path="o"))
    after, _, _ = rewritten(tmp_path, writer(lambda *_: "v"), counter(says), verify=(band,))
    assert asked == [("other", "v", 16), ("other", SEED, 16)]
    score = after.samples[1].score
    assert score is not None
    assert (score.model, score.num_correct) == ("target", 8)  # the target's first replies: no decision has seen them


@pytest.mark.parametrize(
    ("says", "reason", "detail"),
    [
        ("A fine question, I would say.", "no judgement", "not JSON"),
        (json.dumps({"score": 11, "reason": "!"}), "no judgement", "wrong fields"),
        (json.dumps({"score": 7.5, "reason": "the same"}), "low quality", "7.5 of 10: the same"),
    ],
)
def test_low_and_missing_scores_are_refused(says: str, reason: str, detail: str, tmp_path: Path) -> None:
    after, _, prompts = rewritten(
        tmp_path, writer(lambda *_: "v", lambda _: says), counter(scripted({SEED: 14, "v": 8})), attempts=1
    )
    (refused,) = after.rejected
    assert (refused.reason, refused.input) == (reason, "v")
    assert detail in refused.detail
    assert len(refused.provenance.calls) == 2 + (reason == "no judgement")
    judged = next(prompt for prompt in prompts if "# Rewritten question" in prompt)
    assert f"# Original question\n{SEED}" in judged
    assert "# Rewritten question\nv" in judged


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (f"  {SEED.upper()} ", "same question"),
        ("How many now? #### 4", "leaks the answer"),
        ("How many now? (Hint: the answer is 4.)", "leaks the answer"),
    ],
)
def test_question_checks_run_before_the_judge(draft: str, reason: str, tmp_path: Path) -> None:
    after, _, prompts = rewritten(tmp_path, writer(lambda *_: draft), counter(scripted({SEED: 14})), attempts=1)
    assert [one.reason for one in after.rejected] == [reason]
    assert len(prompts) == 1


def test_a_question_may_contain_the_answers_number(tmp_path: Path) -> None:
    text = "Let x = 4.\n\nA square has sides of x*x - 12.\n\nHow long is one of them?"
    after, _, _ = rewritten(tmp_path, writer(lambda *_: text), counter(scripted({SEED: 14, text: 8})))
    assert after.samples[1].input == text


def test_equal_variants_of_two_seeds_are_duplicates(tmp_path: Path) -> None:
    count = counter(scripted({"a": 16, "b": 16, "v": 8, "w": 8}))
    where = context(tmp_path)
    before = scored(count, where, "a", "b")
    where.close()
    after, _, _ = rewritten(tmp_path, writer(lambda old, number: "v" if old == "a" else "vw"[number]), count, before)
    assert [sample.input for sample in after.samples] == ["a", "b", "v", "w"]
    assert [(one.reason, one.provenance.index) for one in after.rejected] == [("duplicate", 0)]


@pytest.mark.parametrize(
    ("right", "words"), [(3, "no seed is solved 12 times or more"), (16, "every seed is always solved")]
)
def test_unsuitable_seeds_give_a_warning_with_their_histogram(right: int, words: str, tmp_path: Path) -> None:
    count = counter(scripted({"a": right, "b": right, "v": 8, "w": 8}))
    where = context(tmp_path)
    before = scored(count, where, "a", "b")
    where.close()
    _, then, _ = rewritten(tmp_path, writer(lambda old, _: "v" if old == "a" else "w"), count, before)
    assert words in said(then)
    histogram = " ".join("2" if number == right else "0" for number in range(17))
    assert f"0 to 16: {histogram} seeds" in said(then)


def test_too_few_fresh_replies_leave_a_variant_undecided(tmp_path: Path) -> None:
    usual = scripted({SEED: 14, "v": 8})

    def says(question: str, number: int) -> Reply:
        return LOST if question == "v" and number >= N else usual(question, number)

    after, _, _ = rewritten(tmp_path, writer(lambda *_: "v"), counter(says))
    assert len(after.samples) == 1
    assert [(one.reason, one.detail) for one in after.rejected] == [
        ("undecided", "0 of 0 (32 failed) when counted anew")
    ]


@pytest.mark.parametrize(
    ("votes", "reason"), [("#### 4", None), ("#### 5", "second model disagrees"), ("hm", "no readable vote")]
)
def test_second_model(votes: str, reason: str | None, tmp_path: Path) -> None:
    where = context(tmp_path)
    with serve(answer=lambda body, choice: votes) as script:
        teacher = Endpoint(model="m", base_url=script.url)
        check = SecondModel(vote=MajorityVote(teacher=teacher, votes=3))
        draft = Candidate("v", "", "harder", Provenance(), new_sample("t", SEED, "4", "seed"), answer="4")

        async def ask() -> Candidate | Refusal:
            async with where.connect(teacher, "teacher") as client:
                return await check.verify(draft, TASK, client)

        import asyncio

        outcome = asyncio.run(ask())
    where.close()
    found = outcome.reason if isinstance(outcome, Refusal) else None
    assert found == reason
    assert (outcome.candidate if isinstance(outcome, Refusal) else outcome).answer == "4"


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    """A run killed in the middle of an attempt; the next one requests only what is missing."""
    file = tmp_path / "seeds.jsonl"
    file.write_text("".join(json.dumps({"q": f"s{number}", "a": "4"}) + "\n" for number in range(6)))
    seeds = Seeds(source=Source(path=str(file), input="q", output="a"))
    answered = itertools.count()

    def answer(body: Json, choice: int) -> str:
        next(answered)
        if "# Rewritten question" in (prompt := body["messages"][-1]["content"]):
            return json.dumps({"score": 9, "reason": "more steps"})
        return json.dumps({"question": shown(prompt) + "s" * (1 + body["seed"] % 3)})

    def run_stage(folder: Path, lasts: int = 10**6) -> Path:
        asked = itertools.count()

        def says(question: str, number: int) -> Reply:
            if next(asked) >= lasts:
                raise KeyboardInterrupt
            return RIGHT if number % N < 16 - len(question) % 9 else WRONG

        count, where = counter(says), context(folder)
        state = PipelineState(task=TASK, base=Named(name="target", path="."))
        try:
            with serve(answer=answer) as script:
                teacher = Endpoint(model="m", base_url=script.url, concurrency=2)
                verify = (QualityJudge(teacher=teacher), PassBand(counter=count))
                stage = HarderVariants(
                    teacher=teacher, counter=count, verify=verify, stop="best", chain="last_accepted"
                )
                run_stages({"seeds": seeds, "score": count, "rewrite": stage}, state, where)
        finally:
            where.close()
        return next((folder / "store" / "stages" / "rewrite").glob("[!.]*"))

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = run_stage(tmp_path / "whole")
    num_whole = next(answered)
    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "killed", lasts=500)
    assert next(answered) - num_whole > 10
    again = run_stage(tmp_path / "killed")
    assert next(answered) - num_whole - 2 == num_whole
    for table in ("samples.parquet", "rejected.parquet"):
        assert (again / table).read_bytes() == (whole / table).read_bytes()


def sample_ids(state: PipelineState) -> list[str]:
    return [sample.id for sample in state.samples]


def test_lineage_of_a_variant(tmp_path: Path) -> None:
    after, _, _ = rewritten(tmp_path, writer(lambda *_: "v"), counter(scripted({SEED: 14, "v": 8})))
    assert len(set(sample_ids(after))) == 2
    variant: Sample = after.samples[1]
    assert (variant.source_id, variant.generation, variant.solution) == (after.samples[0].id, 1, None)
    assert [verdict.verifier for verdict in variant.verdicts] == ["QualityJudge", "PassBand"]
    assert variant.verdicts[1].reason == "8 of 16, the seed 14 of 16"


def test_incomplete_counts_are_in_no_bin(tmp_path: Path) -> None:
    """Such seeds are not rewritten and are in no bin of the histogram."""
    count = counter(lambda question, number: CUT)
    where = context(tmp_path)
    before = scored(count, where, "a", "b")
    where.close()
    after, then, _ = rewritten(tmp_path, writer(lambda *_: "v"), count, before)
    assert after.figures["seed_counts"] == [0] * 17
    assert "and 2 without 16" in said(then)


def test_a_low_yield_of_variants_fails_the_stage(tmp_path: Path) -> None:
    texts = [f"Seed {number}?" for number in range(60)]
    count = counter(lambda question, number: RIGHT)
    where = context(tmp_path)
    before = scored(count, where, *texts)
    where.close()
    with pytest.raises(StageFailed, match="0 of 120 candidates accepted") as caught:
        rewritten(tmp_path, writer(lambda old, _: old), count, before)
    assert "120 x same question" in str(caught.value)
    assert "rewrite.min_yield=0" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "images", "placed"),
    [
        ("What does <image> mean?", 0, "What does <image> mean?"),
        ("How many?", 1, "<image>\nHow many?"),
        ("A is <image1>. B is <image 2>. Which?", 2, "A is <image>. B is <image>. Which?"),
        ("B is <image2>. A is <image1>. Which?", 2, None),
        ("In <image1> there are shapes. Which of <image1> are not in <image2>?", 2, None),
        ("A is <image3>. Which?", 2, None),
    ],
)
def test_a_variant_shows_the_images_of_its_seed_in_the_same_order(text: str, images: int, placed: str | None) -> None:
    assert place_images(text, images) == placed
