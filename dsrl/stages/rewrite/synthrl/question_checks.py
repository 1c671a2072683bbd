"""Checks of a rewritten question that need no model: its options, its unit, one question only, no stated answer.

They are measured on `tests/stages/rewrite/variants.yaml`. Each prefers precision: what they miss is left to the quality
judge, to a second model and to the target's replies.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from dsrl.data.images import IMAGE
from dsrl.data.task import Task
from dsrl.graders import Grader
from dsrl.stages.generate.candidate import Candidate, Refusal

QUESTION_MARK = re.compile("[?\u061f]+")
SENTENCE_END = re.compile("(?<=[.!?\u3002\u061f])\\s+|(?<=\u3002)|\n+")
PART = re.compile(r"(?:^|(?<=\s))(?:\(([a-h]|[1-9]|i{1,3}|iv|v)\)|([a-h]|[1-9])\))\s+")
"""The label of a part: `(a)`, `b)`, `(ii)`, `2)`."""
ANSWER_LABEL = re.compile(
    r"\b(?:answers?|ans|solutions?|results?|key|hint|option|choice|respuesta|soluci\w+|réponse|antwort|lösung|ergebnis"
    r"|risposta|resposta|cevap)\b|ответ|решение|答案|答え|正解|정답|답",
    re.IGNORECASE,
)
LINK = re.compile(
    r"[\s*_:=.-]*(?:\b(?:is|are|was|were|must be|should be|would be|will be|it'?s|she has|he has|es|est|ist|war|è|é)\b"
    r"|是|为|は|는|은)?[\s*_:=-]*(?:\b(?:the|an?|der|die|das|le|la|el|il)\s)?",
    re.IGNORECASE,
)
"""What may stand between a label and the answer."""
CLAUSE_END = re.compile("[.,;!)\\]*_\u3002\\s]*(?:\n|$)|[.!;\u3002]+(?!\\d)")
ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

UNITS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "length": (
        ("mm", "millimetre", "millimeter"),
        ("cm", "centimetre", "centimeter"),
        ("m", "metre", "meter"),
        ("km", "kilometre", "kilometer"),
        ("inch", "inches"),
        ("foot", "feet", "ft"),
        ("yard",),
        ("mile",),
    ),
    "time": (("second", "sec"), ("minute", "min"), ("hour",), ("day",), ("week",), ("month",), ("year",)),
    "mass": (
        ("mg", "milligram"),
        ("g", "gram"),
        ("kg", "kilogram", "kilo"),
        ("ounce", "oz"),
        ("pound", "lb"),
        ("tonne", "ton"),
    ),
    "volume": (("ml", "millilitre", "milliliter"), ("l", "litre", "liter"), ("gallon",), ("pint",), ("cup",)),
    "money": (("cent", "penny", "pence"), ("dollar",), ("euro",)),
    "angle": (("degree",), ("radian",)),
}
UNIT_OF = {
    name: (dimension, names[0])
    for dimension, units in UNITS.items()
    for names in units
    for name in (*names, *(f"{name}s" for name in names if len(name) > 2))
}
"""Name of a unit -> its dimension and its first name."""
ASKED_UNIT = re.compile(r"\b(?:how many|in|number of)\s+([a-z]+)\b", re.IGNORECASE)


def check_question(candidate: Candidate, task: Task) -> Refusal | None:
    """The refusal by the first check that fails, else None."""
    assert candidate.parent is not None
    assert candidate.answer is not None
    answer, seed, text = candidate.answer, fold(candidate.parent.input), fold(candidate.input)
    seed_grader, grader = task.answer.for_question(candidate.parent.input), task.answer.for_question(candidate.input)
    checks: tuple[tuple[str, Callable[[], str | None]], ...] = (
        ("same question", lambda: find_repetition(seed, text)),
        ("options changed", lambda: find_changed_options(seed_grader, grader)),
        ("several questions", lambda: find_further_questions(seed, text)),
        ("unit changed", lambda: find_changed_unit(seed, text)),
        ("leaks the answer", lambda: find_leak(text, answer, grader)),
    )
    for reason, find in checks:
        if detail := find():
            if reason == "leaks the answer" and find_leak(seed, answer, seed_grader):
                continue  # the seed states it, too
            return Refusal(reason, detail, candidate)
    return None


def fold(text: str) -> str:
    """Full-width and other compatibility characters in their plain form."""
    return unicodedata.normalize("NFKC", text)


def words(text: str) -> list[str]:
    """Case-folded words and numbers, without punctuation and image placeholders."""
    return re.findall(r"\w+", text.replace(IMAGE, " ").casefold())


def find_repetition(seed: str, text: str) -> str | None:
    """Whether a question has exactly the words of the seed, in whatever order, case and punctuation."""
    if words(seed) == words(text):
        return "the seed came back unchanged"
    return "the same words in another order" if Counter(words(seed)) == Counter(words(text)) else None


def find_changed_options(seed: Grader, grader: Grader) -> str | None:
    """How the options of a question differ from its seed's: an inherited letter is only correct for the same options in
    the same order. The graders are bound to the seed and to the question."""
    before, after = seed.allowed(), grader.allowed()
    old = list(before.items()) if isinstance(before, Mapping) else sorted(before)
    new = list(after.items()) if isinstance(after, Mapping) else sorted(after)
    texts = [str(option).casefold() for option in old]
    by_case = len(set(texts)) < len(texts)  # options such as `Tt` and `TT`, of which case tells one from the other
    if old == new or (not by_case and texts == [str(option).casefold() for option in new]):
        return None
    return f"{len(new)} options instead of {len(old)}" if len(new) != len(old) else f"{new} instead of {old}"


def find_further_questions(seed: str, text: str) -> str | None:
    """Whether a question asks for more than one thing although its seed does not: several question marks, or parts of
    which the last one ends the question."""
    marks = len(QUESTION_MARK.findall(text))
    if marks > max(1, len(QUESTION_MARK.findall(seed))):
        return f"{marks} question marks"
    parts = list(PART.finditer(text))
    if len(parts) < 2 or len(list(PART.finditer(seed))) >= 2:
        return None
    return f"{len(parts)} parts" if len(sentences(text[parts[-1].end() :])) <= 1 else None


def sentences(text: str) -> list[str]:
    return [sentence for sentence in SENTENCE_END.split(text.strip()) if sentence and sentence.strip()]


def find_changed_unit(seed: str, text: str) -> str | None:
    """The unit in which a question asks for its answer, if its seed asks for another one of the same dimension."""
    before, after = asked_unit(seed), asked_unit(text)
    if before and after and before[0] == after[0] and before != after:
        return f"in {after[1]} instead of {before[1]}"
    return None


def asked_unit(text: str) -> tuple[str, str] | None:
    """Dimension and unit in which the last sentence of a question asks, as in `how many metres` or `in cm`."""
    last = sentences(text)[-1:]
    units = {UNIT_OF[name.lower()] for name in ASKED_UNIT.findall("".join(last)) if name.lower() in UNIT_OF}
    return units.pop() if len(units) == 1 else None


def find_leak(question: str, answer: str, grader: Grader) -> str | None:
    """The words in which a question states its answer: in a reply's format, in a box, as the whole clause after a label
    such as "answer", or at the end of a statement that follows the question. A number or word that merely occurs is no
    leak."""
    if grader.grade(question, answer).correct:
        return f"{answer}, where a reply would state it"
    for boxed in re.findall(r"\\boxed\{([^{}]*)\}", question):
        if is_answer(boxed, answer, grader):
            return f"\\boxed{{{boxed}}}"
    for label in ANSWER_LABEL.finditer(question):
        link = LINK.match(question, label.end())
        start = link.end() if link else label.end()
        rest = question[start : start + max(20, 2 * len(answer))]
        for end in CLAUSE_END.finditer(rest):
            if is_answer(rest[: end.start()], answer, grader):
                return question[label.start() : start + end.start()]
    return next(closing_statements(question, answer, grader), None)


def closing_statements(question: str, answer: str, grader: Grader) -> Iterator[str]:
    """Statements after the last question mark, and after the options, that end in the answer."""
    tail = QUESTION_MARK.split(question)[-1] if QUESTION_MARK.search(question) else ""
    if grader.allowed():
        tail = tail.partition("\n\n")[2]
    for statement in sentences(tail):
        last = re.split(r"[\s:=-]+", statement.strip(" \t.;,!()[]*_\u3002"))[-1]
        numbers = re.findall(r"\d+(?:\.\d+)?", statement)
        if len(numbers) <= 1 and is_answer(last, answer, grader):
            yield statement.strip()


def is_answer(text: str, answer: str, grader: Grader) -> bool:
    """Whether a short text is nothing but the answer, in digits, as an English number word, or as a letter."""
    bare = text.strip(" \t*_()[]$:=.").casefold()
    if not bare:
        return False
    bare = number_word(bare) or bare
    if bare == answer.casefold():
        return True
    read = grader.read(bare)
    return read is not None and len(words(bare)) <= len(words(answer)) + 1 and grader.same(read, answer)


def number_word(text: str) -> str | None:
    """`thirty-six` -> `36`, below 100."""
    tens, _, ones = text.replace("-", " ").partition(" ")
    if text in ONES:
        return str(ONES.index(text))
    if tens in TENS and (not ones or ones in ONES[1:10]):
        return str(20 + 10 * TENS.index(tens) + (ONES.index(ones) if ones else 0))
    return None
