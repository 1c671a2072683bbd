import json
from pathlib import Path

import pytest

from dsrl.graders import Number
from dsrl.main import run_command


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_demos_are_drawn_and_fewer_are_the_beginning_of_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (3, 10):
        assert run_command(["task", "demos", "quickstart", f"count={count}", f"out={tmp_path / str(count)}.jsonl"]) == 0
    few, many = (rows(tmp_path / f"{count}.jsonl") for count in (3, 10))
    assert few == many[:3]
    assert len({row["input"] for row in many}) == 10
    assert all(Number(marker="####").parse(row["output"]) for row in many)
    assert "task.num_demos=10" in capsys.readouterr().out


def test_bare_labels_become_answers_in_the_output_format(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        "".join(
            json.dumps({"sentence1": f"Fever {i}.", "sentence2": "Ill.", "gold_label": "entailment"}) + "\n"
            for i in range(4)
        )
    )
    out = tmp_path / "demos.jsonl"
    gold = f"task.gold.path={tmp_path / 'train.jsonl'}"
    assert run_command(["task", "demos", "mednli", "count=2", f"out={out}", gold]) == 0
    assert [row["output"] for row in rows(out)] == ["<answer>entailment</answer>"] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quickstart"], "count must be a whole number"),
        (["quickstart", "count=0"], "count must be a whole number"),
        (["quickstart", "count=x"], "count must be a whole number"),
        (["quickstart", "count=3", "seed=-1"], "seed must be a whole number"),
        (["quickstart", "count=10000"], "count=600"),
        (["cqa", "count=3"], "task cqa has no labelled data"),
        (["count=3"], "dsrl task ls"),
        (["quickstart", "count=3", "out=there.jsonl"], "out=FILE.jsonl"),
        (["quickstart", "count=3", "out=nowhere/x.jsonl"], "can't write nowhere/x.jsonl"),
        (["nothing", "count=3"], "nothing"),
    ],
)
def test_what_cannot_be_drawn_says_why(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.jsonl").touch()
    assert run_command(["task", "demos", *words]) != 0
    assert said in capsys.readouterr().err
