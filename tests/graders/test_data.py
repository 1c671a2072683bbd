"""Real data sets: every gold answer is read and graded right, and a changed one never is."""

import csv
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsrl.graders import Choice, Grader, Label, Math, Number
from tests.command import CHECKOUT

ANSWERS = Label(labels=("Yes", "No"))
DECISIONS = Label(labels=("yes", "no", "maybe"))


def data(name: str) -> str:
    """The text of a data file; skips the test where it isn't."""
    folder = Path(os.environ.get("DSRL_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
    if not (folder / name).is_file() and "DSRL_TEST_DATA" not in os.environ:
        pytest.skip(f"no {name}: DSRL_TEST_DATA names the folder that holds it")
    return (folder / name).read_text(encoding="utf-8")


def lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in data(name).splitlines()]


def gsm8k() -> list[str]:
    return [row["answer"] for part in ("train", "test") for row in lines(f"gsm8k_{part}.jsonl")]


def logiqa() -> Iterator[tuple[str, str]]:
    """(question with its options, right letter); a record has eight lines, the first of them blank."""
    rows = data("logiqa_test.txt").splitlines()
    for start in range(0, len(rows), 8):
        _, letter, context, question, *options = rows[start : start + 8]
        texts = [f"{name}: {option[2:].strip()}" for name, option in zip("ABCD", options, strict=True)]
        yield "\n".join([context, question, *texts]), letter.strip().upper()


def proved(grader: Grader, text: str) -> str:
    """The canonical gold answer, which must be read, and be right when it is written in the output format."""
    answer = grader.gold(text)
    assert answer is not None, text[-80:]
    assert grader.grade(grader.write(answer), answer).reason == "right", text[-80:]
    return answer


def mutations(answer: str, rng: random.Random) -> set[str]:
    """The same number with another sign, size, digit, order of digits or decimal point."""
    digits = answer.lstrip("-")
    place = rng.randrange(len(digits))
    other = rng.choice([digit for digit in "123456789" if digit != digits[place]])
    changed = {
        answer[1:] if answer.startswith("-") else f"-{answer}",
        f"{answer}0" if "." not in answer else f"{answer}1",
        f"{answer}.5" if "." not in answer else digits.replace(".", "", 1),
        f"{answer} thousand",
        f"{answer}k",
        f"{answer}/7",
        f"{digits} million" if "." in digits or digits == "1" else f"1/{digits}",
        digits[:place] + other + digits[place + 1 :] if digits[place] != "." else f"9{digits}",
        digits[::-1],
        digits[1:] + digits[0],
    }
    zero = {"-0", "00", "0 thousand", "0k", "0/7", "0", "0.0"} if answer == "0" else set()
    same = {answer, f"{answer}.", *zero}
    return {text for text in changed - same if not _equal(text, answer)}


def _equal(first: str, second: str) -> bool:
    try:
        return float(first) == float(second)
    except ValueError:
        return False


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.e2e)])
def test_gsm8k_8792_gold_solutions_are_right_and_their_mutations_are_not(every: int) -> None:
    golds, grader, rng, tried = gsm8k(), Number(), random.Random(0), 0
    assert len(golds) == 8792
    for number, gold in enumerate(golds):
        answer = proved(grader, gold)
        assert grader.grade(gold, answer).correct
        for wrong in mutations(answer, rng) if number % every == 0 else ():
            tried += 1
            assert not grader.grade(f"#### {wrong}", answer).correct, (wrong, answer)
    assert tried > 60_000 / every


def test_gsm8k_in_another_unit_is_no_answer() -> None:
    grader = Number(units=("dollars", "dollar", "$"))
    for gold in gsm8k()[:1000]:
        answer = proved(grader, gold)
        assert grader.grade(f"#### {answer} dollars", answer).correct
        assert not any(grader.grade(f"#### {answer} {unit}", answer).correct for unit in ("cents", "%", "km", "euros"))


def test_logiqa_651_letters_and_texts_of_options() -> None:
    rows = list(logiqa())
    assert len(rows) == 651
    for question, letter in rows:
        grader = Choice().for_question(question)
        assert proved(grader, letter) == letter
        options = dict(line.split(": ", 1) for line in question.splitlines()[-4:])
        for other, text in options.items():
            assert grader.grade(f"<answer>{other}: {text}</answer>", letter).correct is (other == letter), text
            by_text = grader.parse(f"<answer>{text}</answer>")
            assert by_text == (text if text in "ABCD" else other), text  # one option reads `C`, and is A


def test_cqa_396_labels() -> None:
    rows = list(csv.DictReader(data("cqa_test.tsv").splitlines(keepends=True), delimiter="\t"))
    assert len(rows) == 396
    for row in rows:
        answer = proved(ANSWERS, row["answer"])
        other = "No" if answer == "Yes" else "Yes"
        assert not ANSWERS.grade(f"<answer>{other}</answer>", answer).correct
        assert not ANSWERS.grade(f"<answer>not {answer}</answer>", answer).correct


def test_pubmedqa_1000_decisions() -> None:
    rows = json.loads(data("pubmedqa_labelled.json"))
    assert len(rows) == 1000
    for row in rows.values():
        answer = proved(DECISIONS, row["final_decision"])
        wrong = [label for label in DECISIONS.labels if label != answer]
        assert not any(DECISIONS.grade(f"<answer>{label}</answer>", answer).correct for label in wrong)


def test_sat_32_letters() -> None:
    rows = lines("sat_math_test.jsonl")
    assert len(rows) == 32
    for row in rows:
        answer = proved(Choice(), row["Answer"])
        assert not any(Choice().grade(f"({letter})", answer).correct for letter in "ABCD")
        assert sum(Choice().grade(f"<answer>({letter})</answer>", answer).correct for letter in "ABCD") == 1


def test_minerva_272_boxed_solutions() -> None:
    grader = Math()
    solutions = [row["solution"] for row in lines("minerva_math_test.jsonl")]
    assert len(solutions) == 272
    golds = [proved(grader, solution) for solution in solutions]
    assert all(grade.correct for grade in grader.grade_many(list(zip(solutions, golds, strict=True))))
