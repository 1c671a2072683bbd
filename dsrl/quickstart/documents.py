"""The base model's corpus: counting stories with right answers in three styles, none from a labelled file."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from dsrl.core.digest import text_digest
from dsrl.graders import Number
from dsrl.quickstart.stories import LEVELS, Story, draw
from dsrl.quickstart.testset import draw_stories


@dataclass(frozen=True)
class StoryDocument:
    """A prompt, worded as in every other stage, and an answer."""

    story: Story
    answer: str

    @property
    def prompt(self) -> str:
        return story_prompt(self.story)


def story_prompt(story: Story) -> str:
    """The story and the output instruction of `conf/task/quickstart.yaml`."""
    return f"{story.text}\n\n{Number().instruction}"


def story_documents(
    rng: random.Random, worked: float, bare: float, excluded: frozenset[str]
) -> Iterator[StoryDocument]:
    """An endless corpus without the stories whose digests are excluded. A story may come twice by chance."""
    while True:
        story = draw(rng, rng.choice(LEVELS))
        if text_digest(story.text) not in excluded:
            yield StoryDocument(story, _answer(story, rng.random(), worked, bare))


def _answer(story: Story, luck: float, worked: float, bare: float) -> str:
    if luck < worked:
        return story.solution
    return f"#### {story.answer}" if luck < worked + bare else f"The answer is {story.answer}."


def answer_style(reply: str) -> str:
    """Which of the three styles a reply has, right or wrong."""
    return "worked" if "=" in reply else "bare" if reply.startswith("####") else "prose"


def validation_stories(count: int, seed: int, taken: set[str]) -> list[Story]:
    """Draw validation stories and add their digests to `taken`, so that the corpus leaves them out."""
    return draw_stories(random.Random(f"validation {seed}"), count, taken)
