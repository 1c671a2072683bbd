"""What the offline teacher says: a rule-based program that reads the ordinary prompts, and nothing else.

It finds its way by the headings and the JSON keys any model is shown, works only with the text of a story, and refuses
whatever it cannot do. It has no list of answers and is never given the test set.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from dsrl.quickstart import stories
from dsrl.quickstart.stories import NAMES, NOUNS, CannotDo, Story
from dsrl.quickstart.variants import compared, harder_same, judged

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
ASKED_FOR = re.compile(r"^Reply with JSON: (\{.*\})\s*$", re.MULTILINE)
GIVEN = re.compile(r"Input:\n(.*?)\nAnswer:\n", re.DOTALL)


@dataclass(frozen=True)
class TeacherReply:
    """One reply: free text or JSON, or a refusal in its place."""

    content: str | None
    refusal: str | None = None


@dataclass(frozen=True)
class Habits:
    """How often the teacher is wrong and how often it says nothing usable, as shares of its answers."""

    wrong: float
    unparsable: float


def reply(user: Sequence[str], keys: frozenset[str], habits: Habits, rng: random.Random) -> TeacherReply:
    """Answer the user messages of a conversation; `keys` are those of the JSON schema it must keep to, if any.

    A prompt with headings asks for JSON, any other message is a story to be solved. After a turn such as "reply with
    JSON only" the prompt before it is answered again.
    """
    prompt = next((text for text in reversed(user) if "# Task\n" in text), user[-1])
    keys = keys or asked_keys(prompt)
    try:
        if not keys and "# Sample to check\n" in prompt:
            return TeacherReply(_checked(prompt, habits, rng))
        if keys:
            return TeacherReply(json.dumps(_structured(prompt, keys, habits, rng)))
        return TeacherReply(_vote(prompt, habits, rng))
    except CannotDo as reason:
        refusal = f"{SORRY} ({reason})"
        return TeacherReply(None, refusal) if keys else TeacherReply(refusal)


def asked_keys(prompt: str) -> frozenset[str]:
    """Those of the JSON that a prompt ends with asking for."""
    return frozenset(re.findall(r'"(\w+)":', "".join(ASKED_FOR.findall(prompt)[-1:])))


def _structured(prompt: str, keys: frozenset[str], habits: Habits, rng: random.Random) -> dict[str, object]:
    write = SHAPES.get(keys)
    if write is None:
        raise CannotDo(f"nothing known to write under {sorted(keys)}")
    sections = sections_of(prompt)
    if not re.search(r"\bstor(?:y|ies)\b.*\bhow many\b", sections.get("Task", ""), re.DOTALL | re.IGNORECASE):
        raise CannotDo(f"the task is another one: {sections.get('Task', prompt)[:80]!r}")
    return write(Writer(sections, habits, rng))


def sections_of(prompt: str) -> dict[str, str]:
    """Heading -> what stands below it."""
    parts = HEADING.split(prompt)
    return {heading.strip(): text.strip() for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


@dataclass(frozen=True)
class Writer:
    """Fills in the JSON that a prompt asks for."""

    sections: dict[str, str]
    """The prompt: heading -> what stands below it."""
    habits: Habits
    rng: random.Random

    def keywords(self) -> dict[str, object]:
        wanted = re.search(r"Name (\d+)", self.sections.get("What to do", ""))
        return {"keywords": self.rng.sample(TOPICS, min(int(wanted[1]) if wanted else 8, len(TOPICS)))}

    def pattern(self) -> dict[str, object]:
        return {"pattern": PATTERN}

    def sample(self) -> dict[str, object]:
        story = self._rewritten() or self._invented(self._material())
        steps, answer = _worked(story, self.rng.random() < self.habits.wrong, self.rng)
        ending = _ending(answer, self.sections.get("Output format", ""))
        return {"input": story.text, "output": f"{', '.join(steps)} {ending}"}

    def contexts(self) -> dict[str, object]:
        wanted = re.search(r"Name (\d+)", self.sections.get("What to do", ""))
        return {"contexts": self.rng.sample(TOPICS, min(int(wanted[1]) if wanted else 8, len(TOPICS)))}

    def seed(self) -> dict[str, object]:
        name, noun = self.rng.choice(NAMES), self.rng.choice(NOUNS)
        return {"seed": f"{name} keeps {noun}. Context: {self.sections.get('Context', 'anywhere')}."}

    def concepts(self) -> dict[str, object]:
        """What a story could take from a passage: its topic, where it is one that is known, its people and things."""
        passage = self.sections.get("Passage", "")
        topics = [topic for topic in TOPICS if topic.split()[0] in passage.lower()]
        things = _things(passage)
        return {"topics": (topics or things)[:3], "concepts": [*things[:5], *_people(passage)[:3]]}

    def _material(self) -> str:
        """Whatever a story may be about: concepts come first, where there are any of them that can be counted."""
        concepts = self.sections.get("Concepts", "")
        passages = [text for name, text in self.sections.items() if name.startswith("Passage")]
        if set(re.findall(r"[a-z]+", concepts)) & set(NOUNS):
            return concepts.replace(";", " and").title() + " and " + concepts
        return " ".join([self.sections.get("Instance seed", ""), *passages])

    def variant(self) -> dict[str, object]:
        """A harder story with the same answer, or nearly."""
        story = stories.parse(self.sections.get("Question to make harder", ""))
        return {"question": harder_same(story, self.rng.random() < self.habits.wrong, self.rng).text}

    def judgement(self) -> dict[str, object]:
        score, reason = judged(*(self.sections.get(f"{which} question", "") for which in ("Original", "Rewritten")))
        return {"score": score, "reason": reason}

    def battle(self) -> dict[str, object]:
        first, second = (stories.parse(self.sections.get(f"{which} problem", "")) for which in ("First", "Second"))
        return dict(zip(("harder", "reason"), compared(first, second), strict=True))

    def _rewritten(self) -> Story | None:
        """The given story with one step more or less; None if no story is given."""
        for edit in (stories.harder, stories.easier):
            given = self.sections.get(f"Sample to make {edit.__name__}")
            if given is not None:
                found = GIVEN.match(given)
                return edit(stories.parse(found[1] if found else given), self.rng)
        return None

    def _invented(self, passage: str) -> Story:
        """A new story about somebody and something in the passage, or about anything if there is none."""
        level = self.rng.choice(stories.LEVELS)
        return stories.draw(self.rng, level, _people(passage) or NAMES, _things(passage) or NOUNS)


SHAPES = {
    frozenset({"keywords"}): Writer.keywords,
    frozenset({"pattern"}): Writer.pattern,
    frozenset({"input", "output"}): Writer.sample,
    frozenset({"contexts"}): Writer.contexts,
    frozenset({"seed"}): Writer.seed,
    frozenset({"topics", "concepts"}): Writer.concepts,
    frozenset({"question"}): Writer.variant,
    frozenset({"score", "reason"}): Writer.judgement,
    frozenset({"harder", "reason"}): Writer.battle,
}


def _people(passage: str) -> list[str]:
    """Names it knows; else the capitalised words that do not open a sentence."""
    known = [word for word in re.findall(r"\b[A-Z][a-z]+\b", passage) if word in NAMES]
    return list(dict.fromkeys(known or re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", passage)))


def _things(passage: str) -> list[str]:
    """Plural nouns it knows; else whatever the passage counts."""
    known = [word for word in re.findall(r"[a-z]+", passage.lower()) if word in NOUNS]
    return list(dict.fromkeys(known or re.findall(rf"\b{QUANTITY} ([a-z]+[a-hj-rt-z]s)\b", passage)))


def _checked(prompt: str, habits: Habits, rng: random.Random) -> str:
    """The story that it is shown worked anew, whatever answer stands below it."""
    sections = sections_of(prompt)
    given = GIVEN.match(sections["Sample to check"])
    return _vote(f"{given[1] if given else ''}\n\n{sections.get('Output format', '')}", habits, rng)


def _vote(question: str, habits: Habits, rng: random.Random) -> str:
    """A worked solution in free text, or one that breaks off."""
    text, _, wanted = question.rpartition("\n\n")
    story = stories.parse(text)
    luck = rng.random()
    if luck < habits.unparsable:
        return rng.choice((*UNSURE, f"{story.steps[0]}, and after that"))
    steps, answer = _worked(story, luck < habits.unparsable + habits.wrong, rng)
    opening = rng.choice(("", f"{story.name} starts with {story.start} {story.noun}.\n", f"Count the {story.noun}. "))
    between = rng.choice((", ", "\n"))
    return f"{opening}{between.join(steps)} {_ending(answer, wanted)}"


def _worked(story: Story, slip: bool, rng: random.Random) -> tuple[tuple[str, ...], int]:
    """The sums and their result; with a slip, one change is turned round or misread by one."""
    deltas = [change.delta for change in story.changes]
    if slip:
        place = rng.randrange(len(deltas))
        misread = (-deltas[place], deltas[place] - 1, deltas[place] + 1)
        slips = [[*deltas[:place], delta, *deltas[place + 1 :]] for delta in misread]
        deltas = rng.choice([slip for slip in slips if min(accumulate(slip, initial=story.start)) >= 0])
    return stories.sums(story.start, deltas), story.start + sum(deltas)


def _ending(answer: int, wanted: str) -> str:
    """The final number in the form the output instruction asks for."""
    if "\\boxed" in wanted:
        return f"\\boxed{{{answer}}}"
    return f"#### {answer}" if "####" in wanted or not wanted else f"The answer is {answer}."
