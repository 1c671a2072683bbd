"""Checks of a rewritten question that need no model: is it the old question, and does it state its answer?"""

import re

from dsrl.core.digest import text_digest
from dsrl.data.task import Task
from dsrl.graders import Grader
from dsrl.stages.generate.candidate import Candidate, Refusal

STATED_ANSWER = re.compile(r"\b(?:answer|solution|result)s?\s*(?:is|are|will be|=|:)\s*([^\n]{1,80})", re.IGNORECASE)


def check_question(candidate: Candidate, task: Task) -> Refusal | None:
    """The refusal of a question that is unchanged or states its answer, else None."""
    assert candidate.parent is not None
    assert candidate.answer is not None
    old, new = candidate.parent.input, candidate.input
    if text_digest(new) == text_digest(old):
        return Refusal("same question", "the seed came back unchanged", candidate)
    leak = find_leak(new, candidate.answer, task.answer.for_question(new))
    if leak is not None and find_leak(old, candidate.answer, task.answer.for_question(old)) is None:
        return Refusal("leaks the answer", leak, candidate)
    return None


def find_leak(question: str, answer: str, grader: Grader) -> str | None:
    """The words in which a question states the answer as an answer: in a reply's format, or after "the answer is". A
    number or word that merely occurs is no leak."""
    if grader.grade(question, answer).correct:
        return f"{answer}, where a reply would state it"
    statements = (match[0] for match in STATED_ANSWER.finditer(question))
    return next((statement for statement in statements if grader.correct_anywhere(statement, answer)), None)
