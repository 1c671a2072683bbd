"""The visual base model's corpus: images with right answers in three styles, or with the names of what is in them. None
comes from a labelled file."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsrl.data.sample import IMAGE
from dsrl.graders import Number
from dsrl.quickstart.visual.questions import CountedThing, Question, draw_question
from dsrl.quickstart.visual.scenes import Scene, Shape, draw_scenes

LEVEL_WEIGHTS = {1: 0.35, 2: 0.25, 3: 0.2, 4: 0.2}
NAMED = ("colours", "kinds")


@dataclass(frozen=True)
class SceneDocument:
    scene: Scene
    prompt: str
    answer: str


def question_prompt(text: str) -> str:
    """A question and the output instruction of `conf/task/quickstart_visual.yaml`."""
    return f"{with_image_last(text)}\n\n{Number().instruction}"


def with_image_last(text: str) -> str:
    """Put the image after the question, so that a causal model knows what to look for when it sees the image."""
    return f"{text}\n{IMAGE}"


def scene_documents(
    rng: random.Random, named: float, worked: float, bare: float, excluded: frozenset[str]
) -> Iterator[SceneDocument]:
    """An endless corpus without the images whose digests are excluded."""
    for scene in draw_scenes(rng):
        if scene.digest() in excluded:
            continue
        if rng.random() < named:
            what = rng.choice(NAMED)
            yield SceneDocument(scene, question_prompt(f"Name the {what}."), names(scene, what))
        elif question := draw_question(rng, scene.shapes, rng.choices(*zip(*LEVEL_WEIGHTS.items(), strict=True))[0]):
            answer = _answer(scene, question, rng.random(), worked, bare)
            yield SceneDocument(scene, question_prompt(question.text), answer)


def _answer(scene: Scene, question: Question, luck: float, worked: float, bare: float) -> str:
    number = question.answer(scene.shapes)
    if luck < worked:
        return solution(scene, question)
    return f"#### {number}" if luck < worked + bare else f"There are {number}."


def solution(scene: Scene, question: Question) -> str:
    """Go through all cells for each thing that is counted, then compute the answer."""
    grid = scene.grid()
    number, counts = question.answer(scene.shapes), question.counts(scene.shapes)
    passes, result = _passes(grid, question.first), str(number)
    if question.second is not None:
        passes += _passes(grid, question.second)
        result = f"{counts[0]} {'+' if question.form == 'both' else '-'} {counts[1]} = {number}"
    return f"Look: {', '.join(passes)} = {result} #### {number}"


def _passes(grid: Sequence[Shape | None], thing: CountedThing) -> list[str]:
    """One pass over the cells for the colour, then one for the kind among the shapes that also have the colour."""
    passes = []
    if thing.colour:
        passes.append([thing.colour if shape and shape.colour == thing.colour else "-" for shape in grid])
    if thing.kind:
        passes.append([thing.kind if shape and thing.includes(shape) else "-" for shape in grid])
    return [" ".join(words) for words in passes]


def names(scene: Scene, what: str) -> str:
    """The colour or kind in each cell."""
    words = [(shape.colour if what == "colours" else shape.kind) if shape else "-" for shape in scene.grid()]
    return f"Look: {' '.join(words)}"


def answer_style(reply: str) -> str:
    """Which of the three styles a reply has, right or wrong."""
    return "worked" if reply.startswith("Look") else "bare" if reply.startswith("####") else "prose"
