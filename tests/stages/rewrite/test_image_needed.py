"""Whether a variant needs its image, with a scripted model."""

from pathlib import Path

import pytest

from dsrl.data.images.prompt import prompt_text
from dsrl.data.model import Reply
from dsrl.data.sample import Image, Provenance, new_sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.rewrite import ImageNeeded, PassBand
from tests.stages.rewrite.test_synthrl import LOST, RIGHT, TASK, WRONG, N, Named, Toy, counter
from tests.toys import context

PICTURE = Image(digest="d" * 64, path="d.png", width=8, height=8)
QUESTION = "<image>\nHow many are red, <image> and blue?"
WORDS = "How many are red,  and blue?"


def candidate(images: int = 2, **fields: object) -> Candidate:
    shown = (PICTURE,) * images
    seed = new_sample("t", "<image>\n" * images + "Seed?", "4", "seed", images=shown)
    text = QUESTION if images else "No picture?"
    return Candidate(text, "", "harder", Provenance(), seed, shown, answer="4", **fields)  # type: ignore[arg-type]


def judged(
    folder: Path, one: Candidate, right: dict[bool, int], *, lost: int = 0, share: float = 0.5
) -> Candidate | Refusal:
    """`right`: replies with (True) and without (False) the picture that are right, of sixteen; `lost`: of the latter,
    those that never come."""

    def says(prompt: object, number: int) -> Reply:
        seen = "<image>" in prompt_text(prompt)  # type: ignore[arg-type]
        assert seen or WORDS in prompt_text(prompt)  # type: ignore[arg-type]
        if not seen and number < lost:
            return LOST
        return RIGHT if number % N < right[seen] else WRONG

    where = context(folder)
    check = ImageNeeded(counter=counter(says, spare=0, rollout=Pictured(says=says)), share=share)
    (outcome,) = check.verify_all([one], PipelineState(task=TASK, base=Named(name="target", path="m")), where)
    where.close()
    return outcome


class Pictured(Toy):
    """`Toy` for prompts that may hold images."""

    def generate(self, model, prompts, sampling, count, context):  # type: ignore[no-untyped-def]
        return [[self.says(prompt, number) for number in range(count)] for prompt in prompts]


@pytest.mark.parametrize(
    ("seeing", "unseeing", "share", "needed"),
    [(8, 4, 0.5, True), (8, 5, 0.5, False), (8, 0, 0.0, True), (8, 1, 0.0, False), (16, 14, 0.9, True)],
)
def test_too_many_correct_replies_without_the_image_are_refused(
    seeing: int, unseeing: int, share: float, needed: bool, tmp_path: Path
) -> None:
    outcome = judged(tmp_path, candidate(), {True: seeing, False: unseeing}, share=share)
    if needed:
        assert isinstance(outcome, Candidate)
        assert outcome.verdicts[-1].verifier == "ImageNeeded"
        assert (outcome.num_consumed, outcome.rate and outcome.rate.num_correct) == (N, seeing)
    else:
        assert isinstance(outcome, Refusal)
        assert (outcome.reason, outcome.detail.partition(";")[0]) == (
            "image not needed",
            f"{seeing} of 16, without the picture {unseeing} of 16",
        )


def test_failed_replies_leave_it_undecided(tmp_path: Path) -> None:
    outcome = judged(tmp_path, candidate(), {True: 8, False: 0}, lost=3)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "undecided"


def test_questions_without_images_pass(tmp_path: Path) -> None:
    one = candidate(images=0)
    assert judged(tmp_path, one, {}) is one


def test_an_earlier_count_of_the_same_model_is_reused(tmp_path: Path) -> None:
    """After a pass band only the text is counted, unless the band asked another model."""
    asked: list[str] = []

    def says(prompt: object, number: int) -> Reply:
        asked.append(prompt_text(prompt))  # type: ignore[arg-type]
        return (
            RIGHT
            if number % N < (8 if "red" in prompt_text(prompt) and "<image>" in prompt_text(prompt) else 14)
            else WRONG
        )  # type: ignore[arg-type]

    where, count = context(tmp_path), counter(says, rollout=Pictured(says=says))
    state = PipelineState(task=TASK, base=Named(name="target", path="m"))
    for other, times in ((None, 0), (Named(name="other", path="o"), N)):
        (banded,) = PassBand(counter=count, model=other).verify_all([candidate()], state, where)
        assert isinstance(banded, Candidate)
        asked.clear()
        (outcome,) = ImageNeeded(counter=count).verify_all([banded], state, where)
        assert isinstance(outcome, Refusal)
        assert outcome.reason == "image not needed"
        assert sum("<image>" in text for text in asked) == times
    where.close()
