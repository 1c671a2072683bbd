"""Measure and compare models whose replies are given by a table."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.component import component
from dsrl.core.digest import text_digest
from dsrl.core.errors import StageFailed, UserError
from dsrl.core.parquet import read_table
from dsrl.core.statistics import wilson_interval
from dsrl.data.evaluation import Estimate, Evaluation, Setting
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Image, Match, new_sample
from dsrl.data.source import Item, Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.evaluate import Compare, Evaluate
from dsrl.stages.evaluate.difference import align_predictions, compare_evaluations, paired_gains
from dsrl.stages.evaluate.evaluate import count_pretraining_items
from dsrl.stages.evaluate.predictions import Prediction, grade_replies, read_predictions, write_predictions
from dsrl.stages.evaluate.summary import greedy_correct, independent_units, pass_rate, summarise
from tests.data.test_difficulty_tiers import rating, write_ratings

LOST = Reply(text=None, error="the server hung up")
SHAPES = {
    "+": Reply(text="#### 1", finish_reason="stop"),
    "-": Reply(text="#### 2", finish_reason="stop"),
    "f": Reply(text="It is 1.", finish_reason="stop"),
    "t": Reply(text="Well, let me", finish_reason="length"),
    "?": LOST,
}
"""Right, wrong, right in another format, truncated, missing."""


@component("tests.test_evaluate.Scripted")
class Scripted(Rollout):
    """Answers item i as `sampled[i]` and `greedy[i]` say, whatever the model."""

    sampled: tuple[str, ...]
    greedy: str

    def generate(
        self, model: Model, prompts: Sequence[str], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        assert all(prompt.endswith(Number().instruction) for prompt in prompts)
        if sampling.temperature == 0:
            assert count == 1
            return [[SHAPES[shape]] for shape in self.greedy]
        return [[SHAPES[shape] for shape in shapes] for shapes in self.sampled]


def study_of(folder: Path, num_items: int, **values: Any) -> PipelineState:
    """A state with a test set of `num_items` items, all with the answer 1, and two models without weights."""
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"Input": f"question {number}", "Output": "1"}) + "\n" for number in range(num_items)]
    (folder / "test.jsonl").write_text("".join(rows))
    for name in ("base", "trained"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(name)
    models = {name: Model(name=name, path=str(folder / name)) for name in ("base", "trained")}
    source = Source(path=str(folder / "test.jsonl"))
    task = Task(name="stories", instruction="Answer stories.", answer=Number(), test=source)
    return PipelineState(task=task, **{**models, **values})


def evaluate(sampled: Sequence[str], greedy: str, of: str = "base", **dials: Any) -> Evaluate:
    values = {"samples_per_item": len(sampled[0]), "resamples": 200, **dials}
    return Evaluate(of=of, rollout=Scripted(sampled=tuple(sampled), greedy=greedy), **values)


def said(context: Context) -> str:
    return context.progress.stream.getvalue()  # type: ignore[attr-defined]


def test_every_share_is_over_the_replies_that_came(tmp_path: Path, context: Context) -> None:
    state = evaluate(["++++", "+-ft", "----"], "+f-")(study_of(tmp_path / "s", 3), context)
    found = state.evaluation_base
    assert found is not None
    assert found.item_rates == (1.0, 0.25, 0.0)
    assert found.item_greedy == (True, False, False)
    assert found.pass_at_1.value == pytest.approx(1.25 / 3)
    shares = [found.greedy, found.format_ok, found.format_free, found.truncated]
    assert [share.value for share in shares] == pytest.approx([1 / 3, 10 / 12, 6 / 12, 1 / 12])
    assert all(0 <= share.low < share.value < share.high <= 1 for share in shares)
    assert (found.greedy.low, found.greedy.high) == pytest.approx(wilson_interval(1 / 3, 3))
    assert (found.num_errors, found.num_items) == (0, 3)
    assert found.grader == Number().digest()
    assert state.evaluation_trained is None
    assert state.figures["rows"] == {"in": 3, "out": 3}
    assert "WARNING evaluate: only 3 independent items" in said(context)


def test_every_reply_is_in_the_table_of_predictions(tmp_path: Path, context: Context) -> None:
    evaluate(["+t", "?f"], "+-")(study_of(tmp_path / "s", 2), context)
    rows = read_table(context.scratch / "predictions.parquet", Prediction)
    assert [(row.item, row.index, row.correct) for row in rows] == [
        (0, -1, True), (0, 0, True), (0, 1, False), (1, -1, False), (1, 0, None), (1, 1, False),
    ]  # fmt: skip
    assert (rows[4].error, rows[4].text, rows[4].format_ok) == ("the server hung up", None, None)
    assert (rows[5].correct_anywhere, rows[5].format_ok, rows[2].finish_reason) == (True, False, "length")


def test_figures_by_tier_and_over_groups(tmp_path: Path, context: Context) -> None:
    state = study_of(tmp_path / "s", 4)
    rows = [{"Input": f"question {number}", "Output": "1", "seed": number // 2} for number in range(4)]
    (tmp_path / "s" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path=str(tmp_path / "s" / "test.jsonl"), group="seed")
    state = state.add(task=replace(state.task, test=source))
    ratings = write_ratings(tmp_path, rating("question 0", "hard", "0"), rating("question 2", None, "1"))
    stage = evaluate(["++", "+-", "--", "++"], "++-+", tiers=ratings)
    stage.check()
    found = stage(state, context).evaluation_base
    assert found is not None
    assert found.item_tiers == ("hard", "hard", "unrated", "unrated")
    assert [(part.name, part.num_items) for part in found.tiers] == [("hard", 2), ("unrated", 2)]
    assert found.tiers[0].pass_at_1 is not None
    assert found.tiers[0].pass_at_1.value == 0.75
    assert found.siblings is not None
    assert found.siblings.num_groups == 2
    assert found.siblings.worst is not None
    assert found.siblings.pass_at_1 is not None
    assert (found.siblings.worst.value, found.siblings.pass_at_1.value) == (0.5, 0.625)
    (again,) = {
        summarise(
            read_predictions(context.scratch / "predictions.parquet")[1],
            stage._setting(state.base, state),
            resamples=200,
            seed=0,
        ).item_tiers
    }  # type: ignore[arg-type]
    assert again == found.item_tiers


def test_ratings_enter_the_key_by_their_content(tmp_path: Path) -> None:
    plain = evaluate(["+"], "+")
    assert plain.key_fields()["tiers"] is None
    first = write_ratings(tmp_path, rating("a", "hard"))
    (tmp_path / "other").mkdir()
    second = write_ratings(tmp_path / "other", rating("a", "hard"))
    third = write_ratings(tmp_path / "s", rating("a", "easy")) if (tmp_path / "s").mkdir() is None else ""
    keys = [evaluate(["+"], "+", tiers=path).key({}) for path in (first, second, third)]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(UserError, match="tiers"):
        evaluate(["+"], "+", tiers="nowhere.parquet").check()


def test_figures_by_subject_and_extra_columns(tmp_path: Path, context: Context) -> None:
    state = study_of(tmp_path / "s", 3)
    rows = [{"Input": f"question {number}", "Output": "1", "kind": "ab"[number % 2]} for number in range(3)]
    (tmp_path / "s" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path=str(tmp_path / "s" / "test.jsonl"), subject="kind", keep=("kind", "Output"))
    state = state.add(task=replace(state.task, test=source))
    found = evaluate(["++", "+-", "--"], "+-?")(state, context).evaluation_base
    assert found is not None
    assert found.item_subjects == ("a", "b", "a")
    first, second = found.subjects
    assert (first.name, first.num_items, second.name, second.num_items) == ("a", 2, "b", 1)
    assert (first.pass_at_1 and first.pass_at_1.value, first.greedy and first.greedy.value) == (0.5, 1.0)
    setting, kept = read_predictions(context.scratch / "predictions.parquet")
    assert (setting.model, setting.max_tokens) == (found.model, found.max_tokens)
    assert (kept[0].subject, json.loads(kept[0].data or "")) == ("a", {"kind": "a", "Output": "1"})


def test_missing_replies_are_left_out_of_every_share(tmp_path: Path, context: Context) -> None:
    found = evaluate(["+?", "-?"], "+-")(study_of(tmp_path / "s", 2), context).evaluation_base
    assert found is not None
    assert (found.item_rates, found.format_ok.value, found.num_errors) == ((1.0, 0.0), 1.0, 2)
    assert "2 of 6 replies never came; 2 of 2 items were answered" in said(context)


def test_an_item_that_was_never_answered_is_missing_not_wrong(tmp_path: Path, context: Context) -> None:
    before, after = (["++", "??", "--"], "+-?"), (["++", "++", "+-"], "++?")
    state = both(tmp_path / "s", context, before, after)
    assert state.evaluation_base is not None
    assert state.evaluation_base.item_rates == (1.0, None, 0.0)
    assert state.evaluation_base.item_greedy == (True, False, None)
    assert (state.evaluation_base.pass_at_1.value, state.evaluation_base.greedy.value) == (0.5, 0.5)
    found = Compare(resamples=50)(state, context).figures
    assert (found["difference"]["estimate"], found["difference"]["num_items"]) == (0.25, 2)
    assert found["flipped"] == {"gained": 1, "lost": 0}


@given(st.lists(st.text(alphabet=list(SHAPES), min_size=3, max_size=3), min_size=1, max_size=6))
def test_an_item_without_replies_has_no_rate(shapes: list[str]) -> None:
    items = [Item(input=f"q{number}", answer="1") for number in range(len(shapes))]
    replies = [[SHAPES[shape] for shape in row] for row in shapes]
    made = grade_replies(items, [row[1:] for row in replies], [row[:1] for row in replies], Number())
    groups = [made[start : start + 3] for start in range(0, len(made), 3)]
    expected = [[shape == "+" for shape in row[1:] if shape != "?"] for row in shapes]
    assert [pass_rate(rows) for rows in groups] == [sum(known) / len(known) if known else None for known in expected]
    assert [greedy_correct(rows) for rows in groups] == [None if row[0] == "?" else row[0] == "+" for row in shapes]


@pytest.mark.parametrize(("sampled", "greedy", "kind"), [("??", "+", "sampled"), ("++", "?", "greedy")])
def test_a_model_without_any_reply_fails(
    sampled: str, greedy: str, kind: str, tmp_path: Path, context: Context
) -> None:
    with pytest.raises(StageFailed, match=f"{kind}.*\n.*the server hung up"):
        evaluate([sampled], greedy)(study_of(tmp_path / "s", 1), context)


@pytest.mark.parametrize("of", ["base", "trained"])
def test_a_missing_model_is_not_measured(of: str, tmp_path: Path, context: Context) -> None:
    state = evaluate(["+"], "+", of)(study_of(tmp_path / "s", 1, **{of: None}), context)
    assert state.evaluation_base is state.evaluation_trained is None
    assert f"WARNING evaluate: there is no {of} model" in said(context)


def test_without_a_test_set_nothing_is_measured(context: Context) -> None:
    task = Task(name="stories", instruction="Answer stories.", answer=Number())
    state = evaluate(["+"], "+")(PipelineState(task=task, base=Model(name="m")), context)
    assert state.evaluation_base is None
    assert "task stories has no test set" in said(context)


def test_the_role_is_not_in_the_key() -> None:
    base, trained = evaluate(["+"], "+", "base"), evaluate(["+"], "+", "trained")
    assert base.key_fields() == trained.key_fields()
    assert (base.inputs, trained.outputs) == (("base", "test", "format"), ("evaluation_trained",))


def test_pretraining_texts_are_read_from_the_model_or_the_base(tmp_path: Path, context: Context) -> None:
    state = study_of(tmp_path / "s", 3)
    assert state.base is not None
    items = [Item(input=f"question {number}", answer="1") for number in range(3)]
    assert count_pretraining_items(items, (state.trained, state.base)) == {}
    listed = [text_digest("Question  1"), text_digest("something else")]
    (tmp_path / "s" / "base" / "pretraining_digests.txt").write_text("\n".join(listed))
    found = evaluate(["+"] * 3, "+++", "trained")(state, context).evaluation_trained
    assert found is not None
    assert found.overlap == {"pretraining": 1}


def both(
    folder: Path, context: Context, before: tuple[Sequence[str], str], after: tuple[Sequence[str], str]
) -> PipelineState:
    state = study_of(folder, len(before[1]))
    for of, (sampled, greedy) in (("base", before), ("trained", after)):
        state = evaluate(sampled, greedy, of)(state, context)
    return state


def test_the_base_is_compared_with_the_trained_model(tmp_path: Path, context: Context) -> None:
    before = (["----"] * 10 + ["++--"] * 10, "-" * 15 + "+" * 5)
    after = (["++--"] * 10 + ["++++"] * 10, "-" * 8 + "+" * 11 + "-")
    state = both(tmp_path / "s", context, before, after)
    found = Compare(resamples=500)(state, context)
    difference = found.figures["difference"]
    assert (difference["estimate"], difference["num_items"]) == (0.5, 20)
    assert 0 < difference["low"] < 0.5 < difference["high"] < 1  # equal gains of 20 items do not prove a width of 0
    assert difference["p_value"] < 0.01
    assert found.figures["flipped"] == {"gained": 7, "lost": 1}
    greedy = found.figures["greedy"]
    assert (greedy["p_value"], greedy["difference"]) == pytest.approx((0.0703125, 0.3))
    assert greedy["low"] < 0.3 < greedy["high"]
    assert found.figures["overlap"] == {}
    assert "pass@1 25.0 % -> 75.0 % (+50.0, 95 % interval " in said(context)
    assert "WARNING compare" not in said(context)


def test_compare_finds_test_items_among_the_training_samples(tmp_path: Path, context: Context) -> None:
    state = both(tmp_path / "s", context, (["-", "-"], "--"), (["+", "+"], "++"))
    sample = new_sample("stories", "Question 1", "1", "initial")
    state = state.add(samples=(sample,), selected=(sample.id,))
    assert Compare(resamples=10)(state, context).figures["overlap"] == {"training": 1}
    assert "WARNING compare: 1 test items are among the training samples" in said(context)


HALF = Estimate(value=0.5, low=0.4, high=0.6)


def evaluation(**changes: Any) -> Evaluation:
    values = {
        "name": "m", "model": "m", "test": "t", "grader": "g", "num_items": 2, "samples_per_item": 8,
        "temperature": 1.0, "top_p": 1.0, "max_tokens": 64, "num_errors": 0,
        "item_rates": (0.0, 1.0), "item_greedy": (False, True),
        **dict.fromkeys(("pass_at_1", "greedy", "format_ok", "format_free", "truncated"), HALF),
    }  # fmt: skip
    return Evaluation(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "words", "compared"),
    [
        ({"test": "other"}, "(test: t and other)", False),
        ({"grader": "other"}, "(grader: g and other)", True),
        ({"temperature": 0.5}, "(temperature: 1.0 and 0.5)", True),
        ({"max_tokens": 32}, "(max_tokens: 64 and 32)", True),
        ({"samples_per_item": 4}, "(samples_per_item: 8 and 4)", True),
    ],
)
def test_different_settings_are_warned_of(
    changes: dict[str, Any], words: str, compared: bool, context: Context
) -> None:
    task = Task(name="stories", instruction="Answer stories.", answer=Number())
    state = PipelineState(task=task, evaluation_base=evaluation(), evaluation_trained=evaluation(**changes))
    found = Compare(resamples=10)(state, context)
    assert words in said(context)
    assert ("difference" in found.figures) == compared


def test_one_model_alone_is_not_compared(context: Context) -> None:
    task = Task(name="stories", instruction="Answer stories.", answer=Number())
    state = Compare()(PipelineState(task=task, evaluation_base=evaluation()), context)
    assert state.figures == {"overlap": {}}


def test_gains_are_over_the_items_that_both_answered() -> None:
    gains = paired_gains((0.5, None, 0.0, None), (1.0, 0.5, None, None))
    assert gains is not None
    assert gains.sums.tolist() == [0.5]
    assert paired_gains((None,), (1.0,)) is None


def shares(item: int, source: str = "test") -> Match:
    return Match(source=source, item=item, kind="run", size=13, share=0.5, text="so many words")


def test_the_comparison_is_repeated_without_items_that_share_text_with_training_samples(
    tmp_path: Path, context: Context
) -> None:
    state = both(tmp_path / "s", context, (["+-", "--", "--", "--"], "+---"), (["++", "++", "++", "--"], "+++-"))
    chosen = new_sample("stories", "Question 1", "1", "initial").replace(matches=(shares(2), shares(0, "other.jsonl")))
    left = new_sample("stories", "unlike", "1", "initial").replace(matches=(shares(3),))
    found = Compare(resamples=50)(state.add(samples=(chosen, left), selected=(chosen.id,)), context).figures
    clean = found["clean"]
    assert (clean["n"], clean["excluded"], clean["looked"]) == (2, 2, True)
    assert (found["difference"]["estimate"], clean["difference"]["estimate"]) == (0.625, 0.25)
    assert (clean["base"]["pass_at_1"], clean["trained"]["pass_at_1"]) == (0.25, 0.5)
    assert (clean["base"]["greedy"], clean["trained"]["greedy"]) == (0.5, 0.5)


def test_without_any_clean_item_there_is_no_second_comparison(tmp_path: Path, context: Context) -> None:
    state = both(tmp_path / "s", context, (["+-"], "+"), (["++"], "+"))
    sample = new_sample("stories", "unlike", "1", "initial").replace(matches=(shares(0),))
    clean = Compare(resamples=50)(state.add(samples=(sample,), selected=(sample.id,)), context).figures["clean"]
    assert clean == {"n": 0, "excluded": 1, "base": None, "trained": None, "difference": None, "looked": True}


SETTING = Setting(
    name="m", model="m", test="t", grader="g", samples_per_item=1, temperature=0.7, top_p=1.0, max_tokens=9
)


def predictions(folder: Path, sampled: Sequence[str], rows: Sequence[dict[str, str]]) -> Evaluation:
    """Summarise one greedy and several sampled replies to each row of a test set, through the table on disk."""
    items = [Item(input=row["question"], answer="1", group=row.get("group")) for row in rows]
    replies = [[SHAPES[shape] for shape in shapes] for shapes in sampled]
    path = folder / "predictions.parquet"
    made = Setting(
        name="m", model="m", test="t", grader="g", samples_per_item=1, temperature=0.7, top_p=1.0, max_tokens=9
    )
    write_predictions(path, grade_replies(items, replies, [row[:1] for row in replies], Number()), made)
    found, kept = read_predictions(path)
    return summarise(kept, found, resamples=2000, seed=0)


def test_siblings_are_one_unit_of_evidence(tmp_path: Path) -> None:
    """12 groups of 25 items, each solved as a whole or not: A solves 5 groups, B 8."""
    rows = [{"question": f"question {number}", "group": f"group {number // 25}"} for number in range(300)]
    first, second = (
        predictions(tmp_path, ["+" if number // 25 < solved else "-" for number in range(300)], rows)
        for solved in (5, 8)
    )
    assert (first.num_items, first.num_units) == (300, 12)
    found = compare_evaluations(first, second, resamples=2000, seed=0)
    assert found["difference"]["estimate"] == pytest.approx(0.25)
    assert (found["difference"]["num_items"], found["difference"]["num_units"]) == (300, 12)
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    assert found["difference"]["p_value"] > 0.2
    assert found["greedy"]["p_value"] > 0.2
    assert found["minimum_detectable"] > 0.3


def test_a_repeated_question_is_one_unit_of_evidence(tmp_path: Path) -> None:
    questions = [{"question": f"question {number}"} for number in range(40)]
    shapes = ["+-"[number % 2] for number in range(40)]
    once = predictions(tmp_path, shapes, questions)
    copies = predictions(tmp_path, shapes * 5, questions * 5)
    assert (copies.num_items, copies.num_units) == (200, 40)
    assert (copies.pass_at_1.low, copies.pass_at_1.high) == pytest.approx((once.pass_at_1.low, once.pass_at_1.high))
    assert copies.greedy.high - copies.greedy.low > 0.9 * (once.greedy.high - once.greedy.low)


def test_a_question_about_another_image_is_another_unit() -> None:
    images = [Image(digest=digit * 64, path="x", width=1, height=1) for digit in "ab"]
    items = [Item(input="<image> How many?", answer="1", images=(image,)) for image in (*images, images[0])]
    rows = grade_replies(items, [[SHAPES["+"]]] * 3, [[SHAPES["+"]]] * 3, Number())
    assert independent_units([rows[0:2], rows[2:4], rows[4:6]]) == (0, 1, 0)


def test_a_model_that_left_items_out_is_compared_on_what_both_answered(tmp_path: Path) -> None:
    """Equal replies, but the second model never answers what the first gets wrong."""
    rows = [{"question": f"question {number}"} for number in range(200)]
    shapes = ["+" if number < 132 else "-" for number in range(200)]
    first = predictions(tmp_path, shapes, rows)
    second = predictions(tmp_path, [shape.replace("-", "?") for shape in shapes], rows)
    assert (second.num_answered, second.num_items, second.pass_at_1.value) == (132, 200, 1.0)
    found = compare_evaluations(first, second, resamples=200, seed=0)
    assert (found["difference"]["estimate"], found["difference"]["num_items"]) == (0.0, 132)
    assert {share["estimate"] for share in found["shares"].values()} == {0.0}
    assert found["format_free"] == 0.0
    assert found["missing_as_wrong"] == {"base": 0.66, "trained": 0.66, "estimate": 0.0}


def test_reordered_and_smaller_tables_are_paired_by_question_and_gold(tmp_path: Path) -> None:
    def table(numbers: Sequence[int], gold: str = "1") -> list[Prediction]:
        items = [Item(input=f"question {number}", answer=gold) for number in numbers]
        replies = [[SHAPES["+" if number % 2 else "-"]] for number in numbers]
        return grade_replies(items, replies, replies, Number())

    first, second = align_predictions(table([0, 1, 2, 3]), table([3, 2, 0]))
    assert [row.input for row in first] == [row.input for row in second]
    assert [row.item for row in first] == [row.item for row in second] == [0, 0, 2, 2, 3, 3]
    assert align_predictions(table([0, 1]), table([0, 1], gold="2")) == ([], [])
    twice, once = align_predictions(table([0, 0, 1]), table([1, 0]))
    assert [row.item for row in twice] == [row.item for row in once] == [0, 0, 2, 2]


def test_a_reply_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    rows = grade_replies([Item(input="q", answer="1")], [[SHAPES["+"]]], [[SHAPES["+"]]], Number())
    write_predictions(tmp_path / "twice.parquet", [*rows, rows[1]], SETTING)
    with pytest.raises(UserError, match="item 0, index 0: 2 rows"):
        read_predictions(tmp_path / "twice.parquet")
    write_predictions(tmp_path / "shuffled.parquet", rows[::-1], SETTING)
    assert read_predictions(tmp_path / "shuffled.parquet")[1] == tuple(rows)
