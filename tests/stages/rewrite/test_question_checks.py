"""The checks of rewritten questions, measured on `variants.yaml`: precision and recall per reason."""

from pathlib import Path

import pytest
import yaml
from scipy.stats import binom

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.data.model import Reply
from dsrl.data.sample import Provenance, new_sample
from dsrl.data.task import Task
from dsrl.graders import Choice, Grader, Label, Number, Text
from dsrl.models.rollout.protocols import Rollout
from dsrl.stages.generate.candidate import Candidate
from dsrl.stages.rewrite import PassBand, SinglePass
from dsrl.stages.rewrite.synthrl.question_checks import check_question, number_word
from dsrl.stages.score import PassCount

GRADERS: dict[str, Grader] = {"number": Number(), "text": Text(), "choice": Choice()}
REASONS = ("same question", "options changed", "several questions", "unit changed", "leaks the answer")


def measured(name: str = "variants.yaml") -> list[tuple[str, str | None, str | None]]:
    """(variant, expected reason, found reason); no reason for good variants."""
    rows = []
    for group in yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8")):
        task = Task(name="t", instruction="Answer.", answer=GRADERS[group["kind"]])
        seed = new_sample("t", group["seed"], group["answer"], "seed")
        for text, expected in (*((text, None) for text in group["good"]), *group["bad"].items()):
            candidate = Candidate(text, "", "harder", Provenance(), seed, answer=group["answer"])
            refusal = check_question(candidate, task)
            rows.append((text, expected, refusal.reason if refusal else None))
    return rows


def found_of_all(rows: list[tuple[str, str | None, str | None]]) -> dict[str, tuple[int, int]]:
    """Reason -> how many of the variants with this fault are refused for it, and how many there are."""
    return {
        reason: (
            sum(expected == found == reason for _, expected, found in rows),
            sum(expected == reason for _, expected, _ in rows),
        )
        for reason in REASONS
    }


@pytest.mark.parametrize(
    ("name", "recall", "num_good"),
    [
        (
            "variants.yaml",
            {
                "same question": (5, 7),
                "options changed": (13, 13),
                "several questions": (8, 10),
                "unit changed": (11, 11),
                "leaks the answer": (34, 36),
            },
            47,
        ),
        (
            "variants_held_out.yaml",
            {
                "same question": (1, 2),
                "options changed": (5, 5),
                "several questions": (2, 3),
                "unit changed": (3, 5),
                "leaks the answer": (6, 10),
            },
            13,
        ),
    ],
)
def test_no_good_variant_is_refused_and_recall_is_as_measured(
    name: str, recall: dict[str, tuple[int, int]], num_good: int
) -> None:
    rows = measured(name)
    assert [text for text, expected, found in rows if expected is None and found is not None] == []
    assert sum(expected is None for _, expected, _ in rows) == num_good
    assert found_of_all(rows) == recall


@pytest.mark.parametrize(
    ("text", "word"), [("thirty-six", "36"), ("twelve", "12"), ("ninety", "90"), ("tenth", None), ("twenty ten", None)]
)
def test_number_words(text: str, word: str | None) -> None:
    assert number_word(text) == word


@pytest.mark.parametrize(
    ("grader", "question", "required"),
    [
        (Number(), "How many?", 4),
        (Choice(), "Which?\nA. 1\nB. 2\nC. 3\nD. 4", 8),
        (Choice(options="AB"), "Which?\nA. 1\nB. 2", 12),
        (Choice(), "Which of the pictures shows it?", 8),
        (Label(labels=("yes", "no")), "Is it so?", 12),
    ],
)
def test_the_pass_band_needs_more_correct_replies_than_guessing_brings(
    grader: Grader, question: str, required: int
) -> None:
    counter = PassCount(rollout=Silent(), rollouts=16)
    assert PassBand(counter=counter).required_correct(question, grader) == required
    assert PassBand(counter=counter, max_guessing=1.0).required_correct(question, grader) == 4
    assert SinglePass(counter=counter).required_correct(question, grader) == 1
    assert binom.sf(required - 1, 16, 0.25 if required == 8 else 0.5) < 0.05 or required == 4


def test_too_few_rollouts_to_exclude_guessing_are_an_error() -> None:
    band = PassBand(counter=PassCount(rollout=Silent(), rollouts=2), min_correct=1)
    with pytest.raises(UserError, match="max_guessing"):
        band.required_correct("Is it so?", Label(labels=("yes", "no")))


@component("tests.test_question_checks.Silent")
class Silent(Rollout):
    """A model that is never asked."""

    def generate(self, *_: object) -> list[list[Reply]]:
        raise AssertionError("no reply is needed")
