"""What the offline teacher says about pictures: it finds the shapes by their pixels, reads the question as any model is
shown it, and refuses whatever it cannot do. It knows no answers and no files."""

import json
import random
from collections.abc import Sequence

from dsrl.quickstart.rules import Habits, TeacherReply, asked_keys, sections_of
from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual import questions
from dsrl.quickstart.visual.documents import placed
from dsrl.quickstart.visual.pictures import Shape
from dsrl.quickstart.visual.questions import LEVELS, Question
from dsrl.quickstart.visual.reader import read

SORRY = "I'm sorry, I can only help with counting coloured shapes on one picture."
UNSURE = ("I am not sure.", "Let me look at the picture once more.")
GUESSES = (-1, 1)
"""How far a slip is off."""


def reply(
    user: Sequence[str], pictures: Sequence[bytes], keys: frozenset[str], habits: Habits, rng: random.Random
) -> TeacherReply:
    """Answer the user messages of a conversation that shows pictures."""
    prompt = next((text for text in reversed(user) if "# Task\n" in text), user[-1])
    keys = keys or asked_keys(prompt)
    try:
        if len(pictures) != 1:
            raise CannotDo(f"{len(pictures)} pictures")
        shapes = read(pictures[0])
        return TeacherReply(
            json.dumps(_structured(prompt, keys, shapes, habits, rng)) if keys else _vote(prompt, shapes, habits, rng)
        )
    except CannotDo as reason:
        refusal = f"{SORRY} ({reason})"
        return TeacherReply(None, refusal) if keys else TeacherReply(refusal)


def _structured(
    prompt: str, keys: frozenset[str], shapes: Sequence[Shape], habits: Habits, rng: random.Random
) -> dict[str, object]:
    sections = sections_of(prompt)
    if keys == {"question"}:
        given = questions.parse(sections.get("Question to make harder", ""))
        return {"question": placed(harder_same(given, shapes, rng.random() < habits.wrong, rng).text)}
    if keys == {"score", "reason"}:
        old, new = (sections.get(f"{which} question", "") for which in ("Original", "Rewritten"))
        score, reason = judged(old, new, shapes)
        return {"score": score, "reason": reason}
    raise CannotDo(f"nothing known to say about a picture under {sorted(keys)}")


def harder_same(question: Question, shapes: Sequence[Shape], slip: bool, rng: random.Random) -> Question:
    """A question of a higher level that comes to the same number on this picture; with a slip, to one next to it.
    Raises `CannotDo` where the picture has none."""
    answer = question.answer(shapes) + (rng.choice(GUESSES) if slip else 0)
    levels = [level for level in LEVELS if level > question.level]
    same = [one for level in levels for one in questions.fitting(shapes, level) if one.answer(shapes) == answer]
    if not same:
        raise CannotDo(f"nothing harder on this picture comes to the same number as {question.text!r}")
    return rng.choice(same)


def judged(original: str, rewritten: str, shapes: Sequence[Shape]) -> tuple[int, str]:
    """Points from 0 to 10, and why. Like any judge of quality it compares no answers; it looks at the picture for what
    the questions name."""
    try:
        old, new = questions.parse(original), questions.parse(rewritten)
    except CannotDo as reason:
        return 0, f"I can't read it: {reason}."
    added = new.level - old.level
    if added <= 0:
        return 2, "It asks for no more than the original."
    seen = min(new.parts(shapes)) > 0
    clear, words = (2, "all that it names is on the picture") if seen else (0, "it names what isn't on the picture")
    return min(3 + added, 5) + 3 + clear, f"It takes {added} more step{'s' if added > 1 else ''}, and {words}."


def _vote(prompt: str, shapes: Sequence[Shape], habits: Habits, rng: random.Random) -> str:
    """An answer in free text, or none."""
    question, luck = questions.parse(prompt), rng.random()
    if luck < habits.unparsable:
        return rng.choice(UNSURE)
    slip = rng.choice(GUESSES) if luck < habits.unparsable + habits.wrong else 0
    parts = " and ".join(map(str, question.parts(shapes)))
    return f"I count {parts}. #### {max(0, question.answer(shapes) + slip)}"
