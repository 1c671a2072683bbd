import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.data.sample import Votes
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.cost import cost
from dsrl.stages.report.dataset import difficulty, pass_rate_slots, selection
from dsrl.stages.report.headline import headline
from dsrl.stages.report.labels import labels, vote_agreement
from dsrl.stages.report.overview import funnel
from dsrl.stages.report.training import read_progress, training
from tests.stages.report.made import make_study


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.percent(0.4125), "41.2\u202f%"),
        (formatting.percent(None), "\u2013"),
        (formatting.points(0.311), "+31.1"),
        (formatting.points(-0.02), "\u22122.0"),
        (formatting.count(1234), "1234"),
        (formatting.count(12345), "12\u202f345"),
        (formatting.significant(0.00077), "0.00077"),
        (formatting.significant(-3.2e-7), "\u22123.2e\u221207"),
        (formatting.significant(12345.6), "12346"),
        (formatting.duration(0.44), "0.4 s"),
        (formatting.duration(59.7), "1 min 0 s"),
        (formatting.duration(7800), "2 h 10 min"),
        (formatting.dollars(None), "unknown"),
        (formatting.dollars(0), "$0.00"),
        (formatting.dollars(0.0423), "$0.0423"),
        (formatting.dollars(12.3), "$12.30"),
        (formatting.p_value(0.0004), "p < 0.001"),
        (formatting.p_value(0.0312), "p = 0.031"),
        (formatting.plural(1, "reply", "replies"), "1 reply"),
        (formatting.plural(3, "reply", "replies"), "3 replies"),
        (formatting.join_words(["a", "b", "c"]), "a, b and c"),
        (formatting.join_words(["a"]), "a"),
    ],
)
def test_numbers_as_printed(shown: str, expected: str):
    assert shown == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\u202e7 :rewsna", "\u27e8U+202E\u27e97 :rewsna"),
        ("a\u200bb\ufeff", "a\u27e8U+200B\u27e9b\u27e8U+FEFF\u27e9"),
        ("a\u200db", "a\u27e8U+200D\u27e9b"),
        (
            "\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u0631\u0648\u0645",
            "\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u0631\u0648\u0645",
        ),
    ],
)
def test_invisible_characters_are_spelled_out_but_joiners_stay(text: str, shown: str):
    assert formatting.show_invisible(text) == shown


def test_labels_of_charts_are_escaped():
    picture = svg.histogram([svg.Slot((svg.Bar(1, "<b>"),), "<i>")], label='"<script>')
    assert "<script>" not in picture
    assert "<b>" not in picture
    assert "<i>" not in picture


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_a_curve_stays_inside_its_picture(values: list[float]):
    picture = svg.curve(list(enumerate(values)), label="curve")
    points = [point for chunk in picture.split('points="')[1:] for point in chunk.split('"')[0].split()]
    places = [tuple(map(float, point.split(","))) for point in points]
    assert all(0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT for x, y in places)


def test_the_headline_pairs_both_models(tmp_path: Path):
    state, context = make_study(tmp_path, count=1)
    found = headline(state, context.metrics)
    assert found is not None
    assert found.verdict.startswith("Training raised pass@1 by")
    assert "learned the task" in found.verdict
    assert found.items is not None
    assert found.items.total == 400
    assert [check.passed for check in found.checks] == [True, True]
    assert "130 gained, 6 lost, McNemar p < 0.001" in found.measures[1].note
    assert "6 replies" in found.method


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-0.02, 0.05, "includes zero"), (None, None, "without an interval"), (-0.3, -0.1, "lowered")],
)
def test_the_verdict_depends_on_the_interval(tmp_path: Path, low, high, words):
    state, context = make_study(tmp_path, count=1)
    context.metrics["stages"]["compare"]["difference"] = {"estimate": 0.1, "low": low, "high": high}
    found = headline(state, context.metrics)
    assert found is not None
    assert words in found.verdict


def test_a_gain_in_format_alone_is_named(tmp_path: Path):
    state, context = make_study(tmp_path, count=1)
    context.metrics["stages"]["compare"]["shares"]["format_free"]["estimate"] = 0.01
    found = headline(state, context.metrics)
    assert found is not None
    assert "most of the gain is the format" in found.verdict


def test_checks_name_overlap_unknowns_and_different_graders(tmp_path: Path):
    state, context = make_study(tmp_path, count=1)
    trained = replace(state.evaluation_trained, overlap={"training": 3}, grader="another")
    base = replace(state.evaluation_base, overlap={})
    found = headline(replace(state, evaluation_base=base, evaluation_trained=trained), context.metrics)
    assert found is not None
    assert [check.passed for check in found.checks] == [False, None, False]
    assert "3 test items" in found.checks[0].words


def test_items_without_a_reply_are_not_counted_and_warned_of(tmp_path: Path):
    state, context = make_study(tmp_path, count=1)
    rates = (None, *state.evaluation_base.item_rates[1:])
    found = headline(replace(state, evaluation_base=replace(state.evaluation_base, item_rates=rates)), context.metrics)
    assert found is not None
    assert found.items is not None
    assert found.items.total == 399
    assert [check.words for check in found.checks if check.passed is False and "399 of 400" in check.words]


def test_the_funnel_has_the_most_frequent_reasons():
    reasons = {f"reason {number}": number for number in range(1, 10)}
    steps = funnel({"rows": {"generate": {"in": 145, "out": 100, "rejected": reasons}, "keywords": {"out": 3}}})
    assert len(steps) == 1
    assert steps[0].rejected == 45
    assert steps[0].reasons[0] == ("reason 9", 9)
    assert steps[0].reasons[-1] == ("other reasons", 6)
    assert steps[0].width + steps[0].rejected_width == pytest.approx(1)


def test_every_scored_sample_is_in_one_bar(tmp_path: Path):
    state, _ = make_study(tmp_path, count=50)
    bars = [bar.value for slot in pass_rate_slots(state.samples) for bar in slot.bars]
    assert sum(bars) == len(state.samples)
    assert len(bars) == 9
    many = [sample.replace(score=replace(sample.score, num_valid=64, num_correct=40)) for sample in state.samples]
    assert [bar.value for slot in pass_rate_slots(many) for bar in slot.bars] == [0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0]


def test_transitions_follow_parents_to_their_rewrites(tmp_path: Path):
    state, _ = make_study(tmp_path, count=50)
    found = difficulty(state.samples)
    assert found is not None
    assert [panel.title for panel in found.panels] == ["Initial", "Rewritten harder", "Rewritten easier"]
    assert sum(row.total for row in found.transitions) == 50
    assert all(sum(number for number, _ in row.cells) == row.total for row in found.transitions)


@pytest.mark.parametrize(
    ("counts", "asked", "failed", "expected"),
    [({"3": 9}, 9, 0, 1.0), ({"3": 9, "4": 3}, 12, 0, 0.75), ({"3": 2}, 4, 2, 1.0), ({}, 4, 0, 0.0), ({}, 4, 4, None)],
)
def test_agreement_is_among_the_answers_received(counts, asked, failed, expected):
    votes = Votes(
        counts=counts, asked=asked, planned=16, unparsable=0, failed=failed, share=0.1, margin=0.1, censored=asked < 16
    )
    assert vote_agreement(votes) == expected


def test_no_votes_no_labels(tmp_path: Path):
    assert labels((), (), ReplyCache(tmp_path)) is None


def test_a_shortfall_comes_with_a_remedy(tmp_path: Path):
    state, context = make_study(tmp_path, count=20)
    found = selection(state, context.metrics)
    assert found is not None
    assert "n=260" in found.shortfall
    assert [panel.title for panel in found.panels] == ["Selected", "Random control"]


def test_repeated_samples_are_counted_and_unscored_ones_have_no_control(tmp_path: Path):
    state, context = make_study(tmp_path, count=20)
    twice = selection(replace(state, selected=state.selected[:2] * 3), context.metrics)
    assert twice is not None
    assert "6 samples to train on (2 distinct)" in twice.lead
    assert "control" in twice.lead
    unscored = replace(state, samples=tuple(sample.replace(score=None) for sample in state.samples))
    blind = selection(unscored, context.metrics)
    assert blind is not None
    assert "control" not in blind.lead


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path: Path):
    path = tmp_path / "progress.jsonl"
    path.write_text('{"step": 1, "reward": 0.5}\n{"step": 2, "rew')
    assert read_progress(path) == [{"step": 1, "reward": 0.5}]
    assert read_progress(tmp_path / "none") == []


def test_the_stage_s_own_series_replaces_a_missing_file(tmp_path: Path):
    state, _ = make_study(tmp_path, count=1)
    figures = {"series": [{"step": 1, "reward": 0.1}, {"step": 2, "reward": float("nan")}], "algorithm": "dr_grpo"}
    found = training(replace(state, files={}), {"stages": {"train": figures}})
    assert found is not None
    lead, panels = found
    assert lead.startswith("DR GRPO")
    assert [panel.title for panel in panels] == ["Reward"]


def test_an_unknown_price_is_not_zero(tmp_path: Path):
    spent = {"requests": 3, "completions": 3, "store_hits": 0, "retries": 2, "usd": None}
    found = cost({"calls": {"teacher": spent, "model": {"requests": 0}}, "seconds": {"train": 3.0}}, tmp_path)
    assert found is not None
    assert found.unknown
    assert [(role.name, role.usd, role.note) for role in found.roles] == [("Teacher", "unknown", "2 retries")]


def test_reused_results_have_their_original_cost_and_time(tmp_path: Path):
    for key, usd, seconds in (("k1", 0.5, 12.0), ("k2", 0.25, 30.0)):
        folder = tmp_path / "stages" / "generate" / key
        folder.mkdir(parents=True)
        calls = {"teacher": {"requests": 10, "completions": 20, "store_hits": 0, "usd": usd}}
        (folder / "manifest.json").write_text(json.dumps({"calls": calls, "seconds": seconds}))
    metrics = {
        "keys": {"generate": "k1", "rewrite": "k2", "score": "gone"},
        "reused": {"generate": True, "rewrite": True, "score": True},
        "seconds": {"generate": 0.1, "rewrite": 0.1, "score": 0.2, "compare": 0.3},
        "calls": {},
    }
    found = cost(metrics, tmp_path)
    assert found is not None
    (role,) = found.roles
    assert (role.requests, role.completions, role.usd) == ("20", "40", "$0.7500")
    assert role.note == "earlier runs, reused here"
    assert [(row.stage, row.words, row.reused) for row in found.durations] == [
        ("generate", "12 s", True), ("rewrite", "30 s", True), ("score", "0.2 s", False), ("compare", "0.3 s", False)
    ]  # fmt: skip
    assert found.total == "0.7 s"


def forecast_row(expected: float, actual: dict[str, object] | None, usd: float | None = 2.0) -> dict[str, object]:
    """One stage of `metrics.json`."""
    row: dict[str, object] = {name: {"expected": expected} for name in ("requests", "input_tokens", "output_tokens")}
    row |= {"usd": None if usd is None else {"expected": usd}, "basis": "assumptions"}
    return row | ({"actual": actual} if actual else {})


def test_a_stage_s_cost_is_that_of_all_runs_and_unknown_counts_are_marked(tmp_path: Path):
    spent = {"completions": 20, "input_tokens": 300, "cached_tokens": 100, "output_tokens": 50, "usd": 0.5}
    metrics = {
        "cost": {
            "generate": {"teacher": {"requests": 10, **spent}},
            "rewrite": {"teacher": {"requests": None, **spent}},
        },
        "per_sample": {"samples": 8, "requests": None, **{name: value / 4 for name, value in spent.items()}},
        "calls": {"teacher": {"requests": 9, "completions": 9, "cached_tokens": 7, "throttled": 2, "usd": 0.5}},
    }
    found = cost(metrics, tmp_path)
    assert found is not None
    assert [(row.name, row.requests, row.completions, row.usd) for row in found.stages] == [
        ("generate", "10", "20", "$0.5000"),
        ("rewrite", formatting.MISSING, "20", "$0.5000"),
    ]
    assert found.per_sample is not None
    assert (found.per_sample.name, found.per_sample.input_tokens) == ("each of 8 samples", "75")
    assert found.roles[0].note == "7 input tokens from the endpoint's cache, 2 rate-limited (429)"
