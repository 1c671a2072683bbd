"""`dsrl compare` on tables of predictions, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsrl.data.evaluation import Setting
from dsrl.data.model import Reply
from dsrl.data.source import Item
from dsrl.graders import Number
from dsrl.main import run_command
from dsrl.pipeline.store import Manifest, Store
from dsrl.stages.evaluate.predictions import grade_replies, write_predictions

SETTING = {
    "name": "tiny", "model": "m", "test": "t", "grader": "g", "samples_per_item": 4, "temperature": 0.7, "top_p": 1.0,
    "max_tokens": 32,
}  # fmt: skip
WORDS = {"+": "So #### 1", "-": "No: #### 2", "?": None}
Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = run_command(["compare", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def table(
    path: Path,
    greedy: str,
    sampled: list[str],
    *,
    subjects: str = "",
    tiers: str = "",
    answer: str = "1",
    **setting: Any,
) -> str:
    """A table of predictions on as many items, shape by shape."""
    items = [
        Item(input=f"question {number}", answer=answer, subject=subjects[number] if subjects else None)
        for number in range(len(greedy))
    ]
    replies = [[_reply(shape) for shape in shapes] for shapes in sampled]
    path.parent.mkdir(parents=True, exist_ok=True)
    hard = [{"e": "easy", "h": "hard", "m": "medium"}[letter] for letter in tiers]
    made = grade_replies(items, replies, [[_reply(shape)] for shape in greedy], Number(), hard)
    write_predictions(path, made, Setting(**{**SETTING, **setting}))
    return str(path)


def _reply(shape: str) -> Reply:
    return Reply(text=WORDS[shape], finish_reason="stop", error=None if WORDS[shape] else "lost")


def pair(folder: Path, **second: Any) -> tuple[str, str]:
    """Forty items: the second model is better on the first twenty."""
    before = table(folder / "a.parquet", "-" * 30 + "+" * 10, ["+---"] * 40)
    after = table(folder / "b.parquet", "+" * 25 + "-" * 15, ["++++"] * 12 + ["++--"] * 8 + ["+---"] * 20, **second)
    return before, after


def test_two_tables(compare: Compare, tmp_path: Path) -> None:
    code, out, err = compare(*pair(tmp_path))
    assert (code, err) == (0, "")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "25.0 %" in lines["pass@1"]
    assert "+27.5 (" in lines["pass@1"]
    assert "p < 0.001" in lines["pass@1"]
    assert "exact McNemar p = 0.017" in lines["greedy"]
    assert "25 gained, 10 lost" in lines["greedy"]
    assert "40 items answered by both; paired bootstrap" in out
    assert "can show a difference of" in out
    assert "gained: only B is correct on 25 items" in out
    assert "  item 0: question 0\n    gold 1   A 2   B 1" in out
    assert "WARNING" not in out


def test_flipped_items_are_kept_as_a_file(compare: Compare, tmp_path: Path) -> None:
    _, out, _ = compare(*pair(tmp_path), "out=kept.jsonl", "show=1")
    assert ": kept.jsonl" in out
    assert out.count("  item ") == 2
    rows = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [row["change"] for row in rows].count("gained") == 25
    assert len(rows) == 35
    assert rows[-1] == {
        "change": "lost", "item": 39, "subject": None, "input": "question 39", "answer": "1", "before": "1",
        "after": "2", "before_reply": "So #### 1", "after_reply": "No: #### 2",
    }  # fmt: skip


def test_a_model_against_itself(compare: Compare, tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    code, out, _ = compare(first, first)
    assert code == 0
    assert "+0.0 (" in out
    assert "0 gained, 0 lost" in out
    assert "pseudo-item" in out
    assert "can show a difference" not in out
    assert not (tmp_path / "flipped.jsonl").exists()


def test_subjects_of_either_side_are_compared(compare: Compare, tmp_path: Path) -> None:
    for both in (True, False):
        first = table(tmp_path / "a.parquet", "-" * 40, ["----"] * 40, subjects="xy" * 20 if both else "")
        second = table(tmp_path / "b.parquet", "+" * 40, ["++++", "----"] * 20, subjects="xy" * 20)
        code, out, _ = compare(first, second)
        assert code == 0
        (x,) = [line for line in out.splitlines() if line.startswith("x ")]
        assert "+100.0 (" in x
        assert "20 items" in x


def test_tiers_are_compared_from_easy_to_hard(compare: Compare, tmp_path: Path) -> None:
    first = table(tmp_path / "a.parquet", "-" * 40, ["----"] * 40)
    second = table(tmp_path / "b.parquet", "+" * 40, ["----", "++++"] * 20, tiers="hemehe" * 6 + "hehe")
    _, out, _ = compare(first, second)
    assert "pass@1 by difficulty tier" in out
    lines = [line for line in out.splitlines() if line.startswith(("easy ", "medium ", "hard "))]
    assert [line.split()[0] for line in lines] == ["easy", "medium", "hard"]
    assert ["+100.0 (" in line for line in lines] == [True, False, False]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"grader": "other"}, "WARNING the two models were graded differently (grader: g and other); don't compare"),
        (
            {"temperature": 1.0},
            "sampled at different temperatures (temperature: 0.7 and 1.0)",
        ),
        ({"max_tokens": 8}, "(max_tokens: 32 and 8)"),
        ({"test": "the same file under another name"}, ""),
    ],
)
def test_settings_that_differ_are_warned_of(
    second: dict[str, Any], words: str, compare: Compare, tmp_path: Path
) -> None:
    code, out, _ = compare(*pair(tmp_path, **second))
    assert code == 0
    assert words in out
    assert ("WARNING" in out) == bool(words)


def test_evaluations_without_a_common_item_are_refused(compare: Compare, tmp_path: Path) -> None:
    first = table(tmp_path / "a.parquet", "++", ["++++"] * 2)
    code, _, err = compare(first, table(tmp_path / "b.parquet", "++", ["++++"] * 2, answer="2"))
    assert code == 2
    assert "2 items in" in err


def test_a_larger_test_set_is_compared_on_the_common_items(compare: Compare, tmp_path: Path) -> None:
    first = table(tmp_path / "a.parquet", "++", ["++++"] * 2)
    code, out, _ = compare(first, table(tmp_path / "b.parquet", "++-", ["++++"] * 3))
    assert code == 0
    assert "2 items are in both and compared; 0 only in A and 1 only in B are left out" in out
    assert "2 items answered by both" in out


def test_replies_that_never_came_are_left_out(compare: Compare, tmp_path: Path) -> None:
    first = table(tmp_path / "a.parquet", "+?", ["????", "++++"])
    second = table(tmp_path / "b.parquet", "?+", ["++++", "??--"])
    code, out, _ = compare(first, second)
    assert code == 0
    assert "1 items answered by both" in out
    assert "WARNING A answered 1 of 2 items" in out
    assert "no item was answered by both" in out  # greedily


def stored(folder: Path, key: str) -> None:
    store = Store(folder / "store")
    store.open()
    scratch = store.scratch("evaluate", key)
    table(scratch / "predictions.parquet", "+-", ["++++", "----"])
    store.commit(
        scratch,
        Manifest(
            stage="evaluate", key=key, parts={}, parents={}, figures={}, rows={}, calls={}, seconds=0.0, created=0.0
        ),
    )


def run_folder(folder: Path, **predictions: str) -> None:
    folder.mkdir()
    measured = {role: {"predictions": path} for role, path in predictions.items()}
    keys = {f"evaluate_{role}": "abc0" for role in predictions}
    (folder / "metrics.json").write_text(json.dumps({"evaluate": measured, "keys": keys}))


def test_runs_keys_and_folders_are_found(compare: Compare, tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    run_folder(tmp_path / "run", base=first, trained=second)
    run_folder(tmp_path / "other", base=first)
    for words in (["run"], ["run:base", "run:trained"], ["other", "run"], ["a.parquet", "b.parquet"]):
        code, out, err = compare(*words)
        assert (code, "+27.5 (" in out) == (0, True), err
    stored(tmp_path, "abc0")
    stored(tmp_path, "abd1")
    for words in (["abc", "abd1"], ["store/stages/evaluate/abc0", "abd"], ["abc0", "abd1", "store=store"]):
        assert compare(*words)[0] == 0


def test_a_run_whose_store_has_moved_is_found_by_its_key(compare: Compare, tmp_path: Path) -> None:
    stored(tmp_path, "abc0")
    run_folder(tmp_path / "run", base="/gone/predictions.parquet")
    assert compare("run", "abc0")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["RUN:trained", "dsrl compare RUN | A B"]),
        (["a.parquet"], ["got:     a.parquet", "dsrl compare RUN | A B"]),
        (["a.parquet", "nope"], ["nope: no such run, evaluation or file", "none"]),
        (["a.parquet", "b.parquet", "c"], ["a.parquet b.parquet c"]),
        (["a.parquet", "b.parquet", "colour=red"], ["colour: unknown option of compare", "resamples"]),
        (["a.parquet", "b.parquet", "--fast"], ["--fast: unknown flag"]),
        (["a.parquet", "b.parquet", "resamples=10"], ["resamples: not a whole number", "100 or more"]),
        (["a.parquet", "b.parquet", "out=no/such/folder.jsonl"], ["can't write no/such/folder.jsonl"]),
        (["a.parquet", "text.txt"], ["text.txt", "predictions.parquet"]),
        (["a.parquet", "plain.parquet"], ["plain.parquet", "predictions.parquet"]),
        (["only"], ["only: no trained model was measured in this run", "measured: base"]),
        (["only", "empty"], ["empty", "metrics.json"]),
    ],
)
def test_mistakes_are_named(words: list[str], said: list[str], compare: Compare, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    first, _ = pair(tmp_path)
    (tmp_path / "text.txt").write_text("no table")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "plain.parquet")
    run_folder(tmp_path / "only", base=first)
    (tmp_path / "empty").mkdir()
    code, _, err = compare(*words)
    assert code == 2
    for word in said:
        assert word in err


def test_predictions_of_an_older_dsrl_are_asked_for_again(compare: Compare, tmp_path: Path) -> None:
    from dsrl.core.parquet import write_table
    from dsrl.stages.evaluate.predictions import Prediction

    first, _ = pair(tmp_path)
    write_table(tmp_path / "old.parquet", [], Prediction)
    code, _, err = compare(first, "old.parquet")
    assert code == 2
    assert "old.parquet" in err
    assert "run dsrl evaluate again" in err
