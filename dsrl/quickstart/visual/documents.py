"""What the model that sees learns from: pictures of its own with right answers in three styles, none out of a labelled
file, and the names of what is on them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsrl.core.digest import digest
from dsrl.data.images.prompt import IMAGE
from dsrl.graders import Number
from dsrl.quickstart.visual.pictures import PLACES, Scene, Shape, scenes
from dsrl.quickstart.visual.questions import Question, What, ask

LEVEL_WEIGHTS = {1: 0.35, 2: 0.25, 3: 0.2, 4: 0.2}
NAMED = ("colours", "kinds")


@dataclass(frozen=True)
class Document:
    """A picture, what is asked about it, and an answer."""

    scene: Scene
    prompt: str
    answer: str


def prompt(text: str) -> str:
    """A question and the output instruction of `conf/task/quickstart_visual.yaml`."""
    return f"{placed(text)}\n\n{Number().instruction}"


def placed(text: str) -> str:
    """The picture comes after the question: who looks at it knows already what to look for."""
    return f"{text}\n{IMAGE}"


def mark(scene: Scene) -> str:
    """Equal for pictures of the same pixels."""
    return digest(scene.draw().tobytes().hex())


def documents(
    rng: random.Random, named: float, worked: float, bare: float, taken: frozenset[str]
) -> Iterator[Document]:
    """An endless corpus, without the pictures whose marks are taken."""
    for scene in scenes(rng):
        if mark(scene) not in taken:
            if rng.random() < named:
                what = rng.choice(NAMED)
                yield Document(scene, prompt(f"Name the {what}."), names(scene, what))
            elif question := ask(rng, scene.shapes, rng.choices(*zip(*LEVEL_WEIGHTS.items(), strict=True))[0]):
                yield Document(scene, prompt(question.text), _answer(scene, question, rng.random(), worked, bare))


def _answer(scene: Scene, question: Question, luck: float, worked: float, bare: float) -> str:
    number = question.answer(scene.shapes)
    if luck < worked:
        return solution(scene, question)
    return f"#### {number}" if luck < worked + bare else f"There are {number}."


def solution(scene: Scene, question: Question) -> str:
    """A look at every place for each thing that matters, and what comes of it."""
    found = grid(scene)
    number, parts = question.answer(scene.shapes), question.parts(scene.shapes)
    if question.second is None:
        looks = _looks(found, question.first)
        result = str(number)
    else:
        looks = [*_looks(found, question.first), *_looks(found, question.second)]
        result = f"{parts[0]} {'+' if question.form == 'both' else '-'} {parts[1]} = {number}"
    return f"Look: {', '.join(looks)} = {result} #### {number}"


def _looks(found: Sequence[Shape | None], what: What) -> list[str]:
    """One pass for the colour, and one for the kind among what has it."""
    colour = [what.colour if shape and shape.colour == what.colour else "-" for shape in found]
    kind = [what.kind if shape and shape.kind == what.kind and what.holds(shape) else "-" for shape in found]
    passes = [colour] if what.colour else []
    passes += [kind] if what.kind else []
    return [" ".join(map(str, words)) for words in passes]


def names(scene: Scene, what: str) -> str:
    """The colour or kind at each place."""
    words = [(shape.colour if what == "colours" else shape.kind) if shape else "-" for shape in grid(scene)]
    return f"Look: {' '.join(words)}"


def grid(scene: Scene) -> list[Shape | None]:
    """Place after place, row by row."""
    at = {(thing.row, thing.column): thing.shape for thing in scene.things}
    return [at.get((row, column)) for row in range(PLACES) for column in range(PLACES)]


def style(reply: str) -> str:
    """Which of the three styles a reply is written in, right or wrong."""
    return "worked" if reply.startswith("Look") else "bare" if reply.startswith("####") else "prose"
