"""What is wrong with a rewritten question at first sight: it is the old one, or it gives its answer away."""

import re

from dsrl.core.digest import text_digest
from dsrl.data.task import Task
from dsrl.graders import Grader
from dsrl.stages.generate.candidate import Candidate, Refusal

GIVEN_AWAY = re.compile(r"\b(?:answer|solution|result)s?\s*(?:is|are|will be|=|:)\s*([^\n]{1,80})", re.IGNORECASE)


def at_first_sight(candidate: Candidate, task: Task) -> Refusal | None:
    """A refusal that needs no model."""
    assert candidate.parent is not None
    assert candidate.answer is not None
    old, new = candidate.parent.input, candidate.input
    if text_digest(new) == text_digest(old):
        return Refusal("same question", "the seed came back unchanged", candidate)
    said = leak(new, candidate.answer, task.answer.for_question(new))
    if said is not None and leak(old, candidate.answer, task.answer.for_question(old)) is None:
        return Refusal("leaks the answer", said, candidate)
    return None


def leak(question: str, answer: str, grader: Grader) -> str | None:
    """The words of a question that state the answer as an answer: where a reply would, or after "the answer is". That
    the number or word merely occurs says nothing."""
    if grader.grade(question, answer).correct:
        return f"{answer}, where a reply would state it"
    pieces = (found[0] for found in GIVEN_AWAY.finditer(question))
    return next((piece for piece in pieces if grader.correct_anywhere(piece, answer)), None)
