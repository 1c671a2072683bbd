"""A small made-up run with everything that a report can show."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsrl.data.evaluation import Estimate, Evaluation, Subject
from dsrl.data.model import Model, Reply
from dsrl.data.sample import Passage, Provenance, Rate, Rejected, Sample, Votes, new_sample
from dsrl.data.task import Demo, Task
from dsrl.graders import Number
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store

NAMES = ("Zoe", "Jun", "Oscar", "Iris", "Noah", "Lena", "Omar", "Mia")
THINGS = ("marbles", "pens", "lambs", "carrots", "shells", "stamps", "boxes")
ROLLOUTS = 8
TASK = Task(
    name="counting",
    instruction="Answer short counting stories.",
    demos=(Demo(input="Mia has 7 pens. Mia gets 4 more. How many pens now?", output="7+4=11 #### 11"),),
    answer=Number(),
)
PASSAGES = tuple(
    Passage(
        id=f"passage-{number}",
        text=f"On market day {NAMES[number]} carries {THINGS[number % 7]} to the stall by the harbour. " * 3,
        source=f"everyday/{number}",
        offset=40 * number,
        keyword="market stall",
        rank=number,
        score=9.5 - number,
    )
    for number in range(8)
)


def story(rng: random.Random, steps: int, number: int) -> tuple[str, int]:
    """A counting story and its answer, different for every `number`."""
    name, thing, total = NAMES[number % 8], rng.choice(THINGS), 5 + number // 8
    sentences = [f"{name} has {total} {thing}."]
    for _ in range(steps):
        change = rng.randint(1, 5)
        total += change
        sentences.append(f"{name} finds {change} more.")
    return " ".join([*sentences, f"How many {thing} now?"]), total


def ballot(rng: random.Random, answer: int, winner: bool = True) -> Votes:
    """Up to sixteen votes, stopped once they are decided."""
    wrong = rng.choice((0, 0, 0, 1, 1, 2, 3)) if winner else 9
    asked = 9 + wrong if winner else 16
    right = asked - wrong
    counts = {str(answer): right} | ({str(answer + 1): wrong} if wrong else {})
    return Votes(
        counts=counts, asked=asked, planned=16, unparsable=0, failed=0, share=right / 16, margin=(right - wrong) / 16,
        censored=asked < 16, generator_agrees=rng.random() < 0.93 if winner else None,
    )  # fmt: skip


def measured(rng: random.Random, steps: int, count: int = ROLLOUTS) -> Rate:
    """A pass rate that falls with the number of steps."""
    skill = min(1.0, max(0.0, rng.gauss(1.15 - 0.28 * steps, 0.22)))
    return Rate(
        model="base", num_rollouts=count, num_valid=count, num_correct=sum(rng.random() < skill for _ in range(count)),
        num_error=0, num_truncated=0, temperature=0.0 if count == 1 else 1.0, grader="number",
    )  # fmt: skip


def written(calls: ReplyCache, text: str, answer: int, votes: Votes, number: int) -> tuple[str, ...]:
    """Put the generated text and its votes into the reply cache."""
    draft = f"{number:016x}" * 2
    passage = PASSAGES[number % 8].text
    prompt = f"# Task\n{TASK.instruction}\n\n# Passage\n{passage}\n\nThis is sample number {number + 1}."
    request = {"model": "offline-rules-v1", "messages": [{"role": "user", "content": prompt}], "temperature": 0.7}
    reply = json.dumps({"input": text, "output": f"... #### {answer}"})
    calls.put(draft, request, {0: Reply(text=reply, finish_reason="stop")}, "offline-rules-v1")
    vote = f"{number + 10**6:016x}" * 2
    said = [value for value, count in votes.counts.items() for _ in range(count)]
    request = {**request, "messages": [{"role": "user", "content": TASK.prompt(text)}]}
    texts = [f"I count to {value}.\n#### {value}" for value in said]
    replies = {i: Reply(text=text, finish_reason="stop") for i, text in enumerate(texts)}
    calls.put(vote, request, replies, "offline-rules-v1")
    return (f"{draft}:0", *(f"{vote}:{i}" for i in range(len(said))))


def make_samples(calls: ReplyCache, count: int, rng: random.Random) -> tuple[Sample, ...]:
    """Initial samples with their pass rates."""
    samples = []
    for number in range(count):
        steps = rng.randint(1, 4)
        text, answer = story(rng, steps, number)
        samples.append(_sample(calls, text, answer, number, rng, None, steps))
    return tuple(samples)


def _sample(
    calls: ReplyCache, text: str, answer: int, number: int, rng: random.Random, parent: Sample | None, steps: int
) -> Sample:
    votes = ballot(rng, answer)
    provenance = Provenance(
        teacher="offline-rules-v1", index=number, keyword="market stall", passage=f"passage-{number % 8}",
        calls=written(calls, text, answer, votes, number),
    )  # fmt: skip
    solved = parent is not None and parent.probe is not None and parent.probe.num_correct == 1
    origin: Any = "initial" if parent is None else "harder" if solved else "easier"
    sample = new_sample(
        TASK.name, text, str(answer), origin, parent=parent, solution=f"step by step #### {answer}", votes=votes,
        provenance=provenance,
    )  # fmt: skip
    return sample.replace(probe=None if parent else measured(rng, steps, 1), score=measured(rng, steps))


def make_rewrites(calls: ReplyCache, parents: tuple[Sample, ...], rng: random.Random) -> tuple[Sample, ...]:
    """One rewrite of each parent: harder if the parent was solved, else easier."""
    made = []
    for number, parent in enumerate(parents):
        solved = parent.probe is not None and parent.probe.num_correct == 1
        steps = 3 if solved else 1
        text, answer = story(rng, steps, len(parents) + number)
        made.append(_sample(calls, text, answer, len(parents) + number, rng, parent, steps))
    return tuple(made)


def make_rejected(count: int, rng: random.Random, parents: tuple[Sample, ...]) -> tuple[Rejected, ...]:
    """Rejected candidates."""
    made = []
    for number in range(count):
        text, answer = story(rng, 2, number)
        reason = rng.choice(("no majority", "no majority", "duplicate", "not JSON"))
        readable = reason != "not JSON"
        votes = ballot(rng, answer, winner=False) if reason == "no majority" else None
        made.append(
            Rejected(
                stage="generate" if number % 3 else "rewrite",
                reason=reason,
                input=text if readable else None,
                answer=str(answer) if readable else None,
                votes=votes,
                parent_id=None if number % 3 else parents[number % len(parents)].id,
                provenance=Provenance(passage=f"passage-{number % 8}", index=number),
            )
        )
    return tuple(made)


def evaluation(rng: random.Random, skill: float, free: float, overlap: dict[str, int]) -> Evaluation:
    """The evaluation of a model with this mean pass rate."""
    rates = tuple(sum(rng.random() < min(1, max(0, rng.gauss(skill, 0.3))) for _ in range(8)) / 8 for _ in range(400))
    mean = sum(rates) / len(rates)
    halves = {"adding": mean + 0.02, "taking away": mean - 0.02}
    return Evaluation(
        name=f"model-{skill}", model=f"model-{skill}", test="test", grader="number", samples_per_item=8,
        temperature=1.0, top_p=1.0, max_tokens=64, num_items=400,
        pass_at_1=near(mean), greedy=near(mean + 0.05), format_ok=near(mean / free), format_free=near(mean + 0.06),
        truncated=near(0.012), num_errors=3, item_rates=rates, item_greedy=tuple(rate > 0.5 for rate in rates),
        item_subjects=("adding", "taking away") * 200, overlap=overlap,
        subjects=tuple(Subject(name=name, num_items=200, pass_at_1=near(value), greedy=None)
                       for name, value in halves.items()),
    )  # fmt: skip


def near(value: float) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - 0.031), high=min(1.0, value + 0.03))


def write_progress(path: Path, rng: random.Random, steps: int = 50) -> None:
    """The log of a trainer that was killed while it wrote its last line."""
    rows = []
    for step in range(1, steps + 1):
        done = step / steps
        row = {
            "step": step, "reward": 0.35 + 0.5 * done + rng.gauss(0, 0.05),
            "correct": 0.3 + 0.5 * done + rng.gauss(0, 0.05), "format_ok": min(1.0, 0.7 + 0.3 * done),
            "completion_length": 30 - 8 * done + rng.gauss(0, 1),
            "loss": rng.gauss(0, 0.02), "kl": 0.05 * done, "entropy": 1.2 - 0.7 * done,
            "validation": 0.4 + 0.35 * done if step % 10 == 0 else None,
        }  # fmt: skip
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows) + '\n{"step": 51, "rew', encoding="utf-8")


def make_metrics(state: PipelineState) -> dict[str, Any]:
    """`metrics.json` as it is when the report is made."""
    base, trained = state.evaluation_base, state.evaluation_trained
    assert base is not None
    assert trained is not None
    gain = trained.pass_at_1.value - base.pass_at_1.value
    half = len(state.samples) // 2
    return {
        "name": "counting", "task": "counting", "model": "tiny-llama", "teacher": "offline-rules-v1", "seed": 0,
        "started": 1_790_000_000.0,
        "keys": {"retrieve": "3f2a" * 5, "generate": "77b0" * 5, "train": "c01d" * 5},
        "seconds": {"retrieve": 0.6, "generate": 12.4, "probe": 8.1, "rewrite": 10.2, "score": 41.0, "select": 0.1,
                    "train": 62.3, "evaluate_base": 33.0, "evaluate_trained": 31.5, "compare": 0.2},
        "reused": {"retrieve": True, "generate": False, "evaluate_base": True},
        "rows": {
            "retrieve": {"in": 10, "out": 150, "rejected": {}},
            "generate": {"in": half + 40, "out": half, "rejected": {"no majority": 22, "duplicate": 10, "not JSON": 8}},
            "probe": {"in": half, "out": half, "rejected": {}},
            "rewrite": {"in": half, "out": 2 * half, "rejected": {"no majority": 9, "no readable vote": 3}},
            "score": {"in": 2 * half, "out": 2 * half, "rejected": {}},
            "select": {"in": 2 * half, "out": len(state.selected), "rejected": {}},
        },
        "calls": {
            "teacher": {"requests": 812, "completions": 4210, "store_hits": 0, "retries": 9, "errors": 0, "repairs": 4,
                        "input_tokens": 318_442, "output_tokens": 121_007, "usd": 0.0423},
            "model": {"requests": 0, "completions": 0, "store_hits": 0, "retries": 0, "errors": 0,
                      "input_tokens": 0, "output_tokens": 0, "usd": None},
        },
        "stages": {
            "select": {"m": len(state.selected) + 12, "shortfall": 12, "suggested_n": 260},
            "train": {"algorithm": "grpo", "engine": "trl", "steps": 50, "chosen_step": 40},
            "compare": {
                "difference": {"estimate": gain, "low": gain - 0.03, "high": gain + 0.03, "p_value": 0.0001},
                "greedy": {"p_value": 0.0002, "method": "exact McNemar", "difference": 0.33},
                "shares": {"format_free": {"estimate": gain}},
                "flipped": {"gained": 130, "lost": 6},
                "minimum_detectable": 0.041,
                "subjects": {name: {"estimate": gain, "low": gain - 0.05, "high": gain + 0.05, "p_value": 0.001}
                             for name in ("adding", "taking away")},
            },
        },
    }  # fmt: skip


def make_study(folder: Path, count: int = 120, seed: int = 0) -> tuple[PipelineState, Context]:
    """A finished run in `folder`: its state, and the context of the report stage."""
    rng = random.Random(seed)
    calls = ReplyCache(folder / "calls")
    first = make_samples(calls, count, rng)
    samples = first + make_rewrites(calls, first, rng)
    within = [sample for sample in samples if sample.score and 0 < sample.score.num_correct < ROLLOUTS]
    within.sort(key=lambda sample: sample.score.num_correct if sample.score else 0)
    selected = tuple(sample.id for sample in within[:80])
    write_progress(folder / "progress.jsonl", rng)
    base = Model(name="tiny-llama", path="model")
    state = PipelineState(
        task=TASK,
        base=base,
        passages=PASSAGES,
        samples=samples,
        rejected=make_rejected(count // 3, rng, first),
        selected=selected,
        control=tuple(sample.id for sample in rng.sample(samples, len(selected))),
        trained=replace(base, name="tiny-llama+grpo"),
        evaluation_base=evaluation(rng, 0.41, 0.6, {"pretraining": 0}),
        evaluation_trained=evaluation(rng, 0.74, 0.9, {"pretraining": 0, "training": 0}),
        files={"train/progress.jsonl": folder / "progress.jsonl"},
    )
    run_dir = folder / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("task:\n  name: counting\nn: 200\n", encoding="utf-8")
    context = Context(run_dir=run_dir, store=Store(folder / "store"), reply_cache=calls, progress=Progress())
    context.metrics.update(make_metrics(state))
    context.progress.warnings.append("select: only 80 of the 92 samples asked for; going on with 80. n=260 would do.")
    return state, context
