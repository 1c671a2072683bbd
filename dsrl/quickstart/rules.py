"""The offline teacher's replies: a rule-based program that reads the ordinary prompts.

It goes by the headings and JSON keys that any model is shown, works only with the text of a story, and refuses
everything else. It has no list of answers and never sees the test set.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from dsrl.quickstart import stories
from dsrl.quickstart.stories import NAMES, NOUNS, CannotDo, Story
from dsrl.quickstart.variants import compare_difficulty, harder_same, judge

_TOPICS = """
    market stall, school library, vegetable garden, coin collection, toy box, post office, fishing harbour, village
    bakery, carpenter's workshop, kitchen shelf, flower shop, orchard harvest, stamp album, farm animals, lost
    property, beach shells, sewing basket, birthday party, classroom cupboard, garden shed, railway station, second-hand
    shop, church fair, museum shop, camping trip, recycling yard, hen house, board games, art class, candle
    maker, pottery studio, laundry room, picnic basket, bird watching, moving house, winter clothes, breakfast
    table, toolbox repairs, charity sale, kite festival
"""
TOPICS = tuple(" ".join(_TOPICS.split()).split(", "))
PATTERN = (
    "A short story in plain present-tense sentences. The first says what somebody has and how many. Each of the "
    "next one to four sentences changes the number by a small amount: more are bought, found, received or won, or "
    "some are given away, sold, lost or thrown out. It never falls below zero. The last sentence asks how many "
    "there are now. The solution writes one sum for each change, each starting from the result before it, and then "
    "the final number."
)
UNSURE = ("I am not sure.", "Let me read the story once more before I count.", "It depends on what is counted.")
SORRY = "I'm sorry, I can only help with short counting stories."

QUANTITY = r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|many|few|several|some|more)"
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
JSON_REQUEST = re.compile(r"^Reply with JSON: (\{.*\})\s*$", re.MULTILINE)
GIVEN_INPUT = re.compile(r"Input:\n(.*?)\nAnswer:\n", re.DOTALL)
DEFAULT_COUNT = 8


@dataclass(frozen=True)
class TeacherReply:
    """Free text or JSON, or a refusal instead."""

    content: str | None
    refusal: str | None = None


@dataclass(frozen=True)
class ErrorRates:
    """Shares of answers that are wrong, and that contain no answer at all."""

    wrong: float
    unparsable: float


def reply(user: Sequence[str], keys: frozenset[str], rates: ErrorRates, rng: random.Random) -> TeacherReply:
    """Reply to the user messages of a conversation; `keys` are those of the requested JSON schema, if any.

    A prompt with headings requests JSON, any other message is a story to solve.
    """
    prompt = find_prompt(user)
    keys = keys or requested_keys(prompt)
    try:
        if keys:
            return TeacherReply(json.dumps(_structured(prompt, keys, rates, rng)))
        if "# Sample to check\n" in prompt:
            return TeacherReply(_check(prompt, rates, rng))
        return TeacherReply(_answer(prompt, rates, rng))
    except CannotDo as reason:
        return refuse(f"{SORRY} ({reason})", structured=bool(keys))


def find_prompt(user: Sequence[str]) -> str:
    """The last prompt with headings, else the last message: after a turn such as "reply with JSON only", the prompt
    before it is answered again."""
    return next((text for text in reversed(user) if "# Task\n" in text), user[-1])


def requested_keys(prompt: str) -> frozenset[str]:
    """Keys of the JSON object that the prompt's last line requests."""
    return frozenset(re.findall(r'"(\w+)":', "".join(JSON_REQUEST.findall(prompt)[-1:])))


def split_sections(prompt: str) -> dict[str, str]:
    """Heading -> text below it."""
    parts = HEADING.split(prompt)
    return {heading.strip(): text.strip() for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def refuse(text: str, *, structured: bool) -> TeacherReply:
    """A refusal: in its own field for structured output, as ordinary text otherwise."""
    return TeacherReply(None, text) if structured else TeacherReply(text)


def _structured(prompt: str, keys: frozenset[str], rates: ErrorRates, rng: random.Random) -> dict[str, object]:
    write = WRITERS.get(keys)
    if write is None:
        raise CannotDo(f"nothing known to write under {sorted(keys)}")
    sections = split_sections(prompt)
    if not re.search(r"\bstor(?:y|ies)\b.*\bhow many\b", sections.get("Task", ""), re.DOTALL | re.IGNORECASE):
        raise CannotDo(f"the task is another one: {sections.get('Task', prompt)[:80]!r}")
    return write(StoryWriter(sections, rates, rng))


@dataclass(frozen=True)
class StoryWriter:
    """Fills in the JSON objects that prompts request."""

    sections: dict[str, str]
    """The prompt: heading -> text below it."""
    rates: ErrorRates
    rng: random.Random

    def keywords(self) -> dict[str, object]:
        return {"keywords": self._topics()}

    def contexts(self) -> dict[str, object]:
        return {"contexts": self._topics()}

    def _topics(self) -> list[str]:
        count = re.search(r"Name (\d+)", self.sections.get("What to do", ""))
        return self.rng.sample(TOPICS, min(int(count[1]) if count else DEFAULT_COUNT, len(TOPICS)))

    def pattern(self) -> dict[str, object]:
        return {"pattern": PATTERN}

    def sample(self) -> dict[str, object]:
        story = self._edit_given_story() or self._new_story(self._material())
        steps, answer = _solve(story, self.rng.random() < self.rates.wrong, self.rng)
        ending = _format_answer(answer, self.sections.get("Output format", ""))
        return {"input": story.text, "output": f"{', '.join(steps)} {ending}"}

    def seed(self) -> dict[str, object]:
        name, noun = self.rng.choice(NAMES), self.rng.choice(NOUNS)
        return {"seed": f"{name} keeps {noun}. Context: {self.sections.get('Context', 'anywhere')}."}

    def concepts(self) -> dict[str, object]:
        """What a story could take from a passage: a known topic, people and things."""
        passage = self.sections.get("Passage", "")
        topics = [topic for topic in TOPICS if topic.split()[0] in passage.lower()]
        things = _things(passage)
        return {"topics": (topics or things)[:3], "concepts": [*things[:5], *_people(passage)[:3]]}

    def variant(self) -> dict[str, object]:
        """A harder story with the same answer, or nearly."""
        story = stories.parse(self.sections.get("Question to make harder", ""))
        return {"question": harder_same(story, self.rng.random() < self.rates.wrong, self.rng).text}

    def judgement(self) -> dict[str, object]:
        score, reason = judge(*(self.sections.get(f"{which} question", "") for which in ("Original", "Rewritten")))
        return {"score": score, "reason": reason}

    def battle(self) -> dict[str, object]:
        first, second = (stories.parse(self.sections.get(f"{which} problem", "")) for which in ("First", "Second"))
        harder, reason = compare_difficulty(first, second)
        return {"harder": harder, "reason": reason}

    def _material(self) -> str:
        """Text from which a story takes people and things: the concepts if any of them can be counted, else the
        passages."""
        concepts = self.sections.get("Concepts", "")
        passages = [text for name, text in self.sections.items() if name.startswith("Passage")]
        if set(re.findall(r"[a-z]+", concepts)) & set(NOUNS):
            return concepts.replace(";", " and").title() + " and " + concepts
        return " ".join([self.sections.get("Instance seed", ""), *passages])

    def _edit_given_story(self) -> Story | None:
        """The given story made harder or easier by one change; None if no story is given."""
        for edit in (stories.harder, stories.easier):
            section = self.sections.get(f"Sample to make {edit.__name__}")
            if section is not None:
                given = GIVEN_INPUT.match(section)
                return edit(stories.parse(given[1] if given else section), self.rng)
        return None

    def _new_story(self, passage: str) -> Story:
        level = self.rng.choice(stories.LEVELS)
        return stories.draw(self.rng, level, _people(passage) or NAMES, _things(passage) or NOUNS)


WRITERS = {
    frozenset({"keywords"}): StoryWriter.keywords,
    frozenset({"pattern"}): StoryWriter.pattern,
    frozenset({"input", "output"}): StoryWriter.sample,
    frozenset({"contexts"}): StoryWriter.contexts,
    frozenset({"seed"}): StoryWriter.seed,
    frozenset({"topics", "concepts"}): StoryWriter.concepts,
    frozenset({"question"}): StoryWriter.variant,
    frozenset({"score", "reason"}): StoryWriter.judgement,
    frozenset({"harder", "reason"}): StoryWriter.battle,
}
"""Keys of the requested JSON object -> what writes it."""


def _people(passage: str) -> list[str]:
    """Known names; else the capitalised words that do not start a sentence."""
    known = [word for word in re.findall(r"\b[A-Z][a-z]+\b", passage) if word in NAMES]
    return list(dict.fromkeys(known or re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", passage)))


def _things(passage: str) -> list[str]:
    """Known plural nouns; else whatever the passage counts."""
    known = [word for word in re.findall(r"[a-z]+", passage.lower()) if word in NOUNS]
    return list(dict.fromkeys(known or re.findall(rf"\b{QUANTITY} ([a-z]+[a-hj-rt-z]s)\b", passage)))


def _check(prompt: str, rates: ErrorRates, rng: random.Random) -> str:
    """Solve the given story anew, whatever answer came with it."""
    sections = split_sections(prompt)
    given = GIVEN_INPUT.match(sections["Sample to check"])
    return _answer(f"{given[1] if given else ''}\n\n{sections.get('Output format', '')}", rates, rng)


def _answer(question: str, rates: ErrorRates, rng: random.Random) -> str:
    """A worked solution in free text, or one that breaks off."""
    text, _, output_format = question.rpartition("\n\n")
    story = stories.parse(text)
    luck = rng.random()
    if luck < rates.unparsable:
        return rng.choice((*UNSURE, f"{story.steps[0]}, and after that"))
    steps, answer = _solve(story, luck < rates.unparsable + rates.wrong, rng)
    opening = rng.choice(("", f"{story.name} starts with {story.start} {story.noun}.\n", f"Count the {story.noun}. "))
    separator = rng.choice((", ", "\n"))
    return f"{opening}{separator.join(steps)} {_format_answer(answer, output_format)}"


def _solve(story: Story, slip: bool, rng: random.Random) -> tuple[tuple[str, ...], int]:
    """The sums and their result; with a slip, one change is misread: its sign, or its amount by one."""
    deltas = [change.delta for change in story.changes]
    if slip:
        position = rng.randrange(len(deltas))
        misread = (-deltas[position], deltas[position] - 1, deltas[position] + 1)
        candidates = [[*deltas[:position], delta, *deltas[position + 1 :]] for delta in misread]
        deltas = rng.choice([slip for slip in candidates if min(accumulate(slip, initial=story.start)) >= 0])
    return stories.sums(story.start, deltas), story.start + sum(deltas)


def _format_answer(answer: int, output_format: str) -> str:
    if "\\boxed" in output_format:
        return f"\\boxed{{{answer}}}"
    return f"#### {answer}" if "####" in output_format or not output_format else f"The answer is {answer}."
