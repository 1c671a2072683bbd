"""What the base model reads: counting stories with right answers in three styles, none out of a labelled file."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from dsrl.core.digest import text_digest
from dsrl.graders import Number
from dsrl.quickstart.stories import LEVELS, Story, draw
from dsrl.quickstart.testset import distinct


@dataclass(frozen=True)
class Document:
    """A prompt as every other stage words it, and an answer."""

    story: Story
    answer: str

    @property
    def prompt(self) -> str:
        return prompt(self.story)


def prompt(story: Story) -> str:
    """The story and the output instruction of `conf/task/quickstart.yaml`."""
    return f"{story.text}\n\n{Number().instruction}"


def documents(rng: random.Random, worked: float, bare: float, taken: frozenset[str]) -> Iterator[Document]:
    """An endless corpus. Stories whose digest is taken are left out; one of its own may come twice, by chance."""
    while True:
        story = draw(rng, rng.choice(LEVELS))
        if text_digest(story.text) not in taken:
            yield Document(story, _answer(story, rng.random(), worked, bare))


def _answer(story: Story, luck: float, worked: float, bare: float) -> str:
    if luck < worked:
        return story.solution
    return f"#### {story.answer}" if luck < worked + bare else f"The answer is {story.answer}."


def style(reply: str) -> str:
    """Which of the three styles a reply is written in, right or wrong."""
    return "worked" if "=" in reply else "bare" if reply.startswith("####") else "prose"


def validation(rows: int, seed: int, taken: set[str]) -> list[Story]:
    """Stories that the gate is measured on; their digests join `taken`, so that the model never reads them."""
    return distinct(random.Random(f"validation {seed}"), rows, taken)
