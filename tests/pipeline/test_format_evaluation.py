"""What a run says about its evaluations at its end."""

from typing import Any

import pytest

from dsrl.pipeline.format_evaluation import interval, lines

BLOCK: dict[str, Any] = {
    "pass_at_1": 0.437, "low": 0.415, "high": 0.459, "greedy": 0.51, "format_free": 0.692, "format_ok": 0.581,
    "truncated": 0.0, "subjects": {}, "predictions": None,
    "intervals": {"greedy": [0.461, 0.559], "format_free": [0.665, 0.718], "format_ok": [0.5, 0.6],
                  "truncated": [0.0, 0.011]},
}  # fmt: skip


def test_every_figure_comes_with_its_interval() -> None:
    first, second = lines("base", BLOCK)
    assert first == "base         pass@1 43.7 % (41.5 to 45.9)  greedy 51.0 % (46.1 to 55.9)"
    assert second.split("  ")[-1] == "cut off 0.0 % (0.0 to 1.1)"
    assert "in any format 69.2 % (66.5 to 71.8)" in second


def test_subjects_and_predictions_follow() -> None:
    half = {"value": 0.5, "low": 0.25, "high": 0.75}
    subjects = {"algebra": {"n": 9, "pass_at_1": half, "greedy": None}}
    *_, subject, place = lines("base", {**BLOCK, "subjects": subjects, "predictions": "store/p.parquet"})
    assert subject == "  algebra: 9 items  pass@1 50.0 % (25.0 to 75.0)"
    assert place == "predictions  store/p.parquet"


@pytest.mark.parametrize(("values", "words"), [((1, 0.9, 1), "100.0 % (90.0 to 100.0)")])
def test_interval(values: tuple[float, float, float], words: str) -> None:
    assert interval(*values) == words
