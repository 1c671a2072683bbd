"""The offline teacher's replies about images. It finds the shapes by their pixels, reads the question as any model gets
it, and refuses everything else. It has no answers and no files."""

import json
import random
from collections.abc import Sequence

from dsrl.quickstart.rules import ErrorRates, TeacherReply, find_prompt, refuse, requested_keys, split_sections
from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual import questions
from dsrl.quickstart.visual.documents import with_image_last
from dsrl.quickstart.visual.questions import LEVELS, Question
from dsrl.quickstart.visual.reader import read_shapes
from dsrl.quickstart.visual.scenes import Shape

SORRY = "I'm sorry, I can only help with counting coloured shapes on one picture."
UNSURE = ("I am not sure.", "Let me look at the picture once more.")
SLIPS = (-1, 1)


def reply(
    user: Sequence[str], images: Sequence[bytes], keys: frozenset[str], rates: ErrorRates, rng: random.Random
) -> TeacherReply:
    """Reply to the user messages of a conversation that shows images."""
    prompt = find_prompt(user)
    keys = keys or requested_keys(prompt)
    try:
        if len(images) != 1:
            raise CannotDo(f"{len(images)} pictures")
        shapes = read_shapes(images[0])
        if keys:
            return TeacherReply(json.dumps(_structured(prompt, keys, shapes, rates, rng)))
        return TeacherReply(_answer(prompt, shapes, rates, rng))
    except CannotDo as reason:
        return refuse(f"{SORRY} ({reason})", structured=bool(keys))


def _structured(
    prompt: str, keys: frozenset[str], shapes: Sequence[Shape], rates: ErrorRates, rng: random.Random
) -> dict[str, object]:
    sections = split_sections(prompt)
    if keys == {"question"}:
        given = questions.parse(sections.get("Question to make harder", ""))
        return {"question": with_image_last(harder_same(given, shapes, rng.random() < rates.wrong, rng).text)}
    if keys == {"score", "reason"}:
        old, new = (sections.get(f"{which} question", "") for which in ("Original", "Rewritten"))
        score, reason = judge(old, new, shapes)
        return {"score": score, "reason": reason}
    raise CannotDo(f"nothing known to say about a picture under {sorted(keys)}")


def harder_same(question: Question, shapes: Sequence[Shape], slip: bool, rng: random.Random) -> Question:
    """A question of a higher level with the same answer on this image; with a slip, with an answer off by one. Raises
    `CannotDo` if there is none."""
    answer = question.answer(shapes) + (rng.choice(SLIPS) if slip else 0)
    levels = [level for level in LEVELS if level > question.level]
    harder = [one for level in levels for one in questions.sensible_questions(shapes, level)]
    same = [one for one in harder if one.answer(shapes) == answer]
    if not same:
        raise CannotDo(f"nothing harder on this picture comes to the same number as {question.text!r}")
    return rng.choice(same)


def judge(original: str, rewritten: str, shapes: Sequence[Shape]) -> tuple[int, str]:
    """A score from 0 to 10, and the reason. Like any quality judge it compares no answers, but it checks that the image
    shows what the question names."""
    try:
        old, new = questions.parse(original), questions.parse(rewritten)
    except CannotDo as reason:
        return 0, f"I can't read it: {reason}."
    added = new.level - old.level
    if added <= 0:
        return 2, "It asks for no more than the original."
    shown = min(new.counts(shapes)) > 0
    clear, words = (2, "all that it names is on the picture") if shown else (0, "it names what isn't on the picture")
    return min(3 + added, 5) + 3 + clear, f"It takes {added} more step{'s' if added > 1 else ''}, and {words}."


def _answer(prompt: str, shapes: Sequence[Shape], rates: ErrorRates, rng: random.Random) -> str:
    question, luck = questions.parse(prompt), rng.random()
    if luck < rates.unparsable:
        return rng.choice(UNSURE)
    slip = rng.choice(SLIPS) if luck < rates.unparsable + rates.wrong else 0
    counts = " and ".join(map(str, question.counts(shapes)))
    return f"I count {counts}. #### {max(0, question.answer(shapes) + slip)}"
