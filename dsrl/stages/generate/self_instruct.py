"""Self-Instruct (arXiv 2212.10560) for one task: the demos and earlier samples are the examples for new ones."""

import random
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import Component, component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.task import Demo, Task
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import GenerationInputs, TeacherGenerator
from dsrl.stages.generate.candidate import Candidate, DraftPrompt, Refusal

if TYPE_CHECKING:
    from dsrl.llm import Client

WORD = re.compile(r"[a-z0-9]+")


@component("stages.generate.self_instruct")
class SelfInstruct(TeacherGenerator):
    """Every prompt shows some demos and some earlier samples; an input too similar to the pool by ROUGE-L is rejected.

    The pool grows by rounds: candidates of one round see the samples of earlier rounds only, so that the result is the
    same however calls overlap.
    """

    place: ClassVar[str] = "self_instruct"
    inputs = ("definition",)
    templates: ClassVar[tuple[str, ...]] = ("self_instruct", *TEMPLATES)

    demos_per_prompt: int = Field(default=6, ge=1)
    own_per_prompt: int = Field(default=2, ge=0)
    """Samples of earlier rounds in each prompt, as far as there are any."""
    round_size: int = Field(default=32, ge=1)
    """Candidates of a round."""
    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """An input is rejected if its ROUGE-L with any input of the pool is this large."""
    min_words: int = Field(default=4, ge=0)
    max_words: int | None = Field(default=None, ge=1)
    """Longest input in words. None: no limit, because inputs may hold whole contracts."""

    def novelty_test(self, state: PipelineState) -> "RougeFilter":
        inputs = (demo.input for demo in state.task.demos)
        return RougeFilter(inputs, self.max_similarity, self.min_words, self.max_words)

    async def draft_prompt(self, number: int, inputs: GenerationInputs) -> DraftPrompt:
        task = inputs.state.task
        if not task.demos:
            raise StageFailed(
                "self_instruct needs demos to start from",
                got=f"0 demos of {task.name}",
                next_step="give task.demos=FILE.jsonl, or a baseline without seeds: experiment=baseline/targen",
            )
        pool = await inputs.accepted_before(number // self.round_size * self.round_size)
        rng = random.Random(digest([self.seed, "candidate", number]))
        demos = sorted(rng.sample(range(len(task.demos)), min(self.demos_per_prompt, len(task.demos))))
        solved = [sample for sample in pool if sample.solution]
        own = rng.sample(solved, min(self.own_per_prompt, len(solved)))
        examples = [task.demos[place] for place in demos]
        examples += [Demo(input=sample.input, output=str(sample.solution)) for sample in own]
        rng.shuffle(examples)
        text = prompts.render("self_instruct", task=task.turn(number), pattern=None, demos=examples, index=number)
        return DraftPrompt(text, number, demos=tuple(demos))


@component("verify.own_answer")
class OwnAnswer(Component):
    """Labels a candidate with the answer that its writer gave; no further request (Self-Instruct)."""

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:  # noqa: ARG002
        answer = task.answer.for_question(candidate.input).parse(candidate.output)
        if answer is None:
            return Refusal("no readable answer", candidate.output[-80:], candidate)
        return candidate.accept("OwnAnswer", answer=answer, solution=candidate.output)


class RougeFilter:
    """Rejects inputs of unfit length, and inputs whose ROUGE-L with one of the pool reaches `max_similarity`."""

    def __init__(self, pool: Iterable[str], max_similarity: float, min_words: int, max_words: int | None) -> None:
        self.max_similarity = max_similarity
        self.min_words = min_words
        self.max_words = max_words
        self.pool = [tokenize(text) for text in pool]

    def fault(self, text: str) -> str | None:
        words = tokenize(text)
        if len(words) < self.min_words or (self.max_words is not None and len(words) > self.max_words):
            return "unfit length"
        return "too similar" if any(self._similar(words, other) for other in self.pool) else None

    def add(self, text: str) -> None:
        self.pool.append(tokenize(text))

    def _similar(self, first: Sequence[str], second: Sequence[str]) -> bool:
        # The lengths alone bound ROUGE-L from above and settle most pairs.
        bound = 2 * min(len(first), len(second)) / (len(first) + len(second) or 1)
        return bound >= self.max_similarity and rouge_l(first, second) >= self.max_similarity


def tokenize(text: str) -> list[str]:
    """Lower-case runs of letters and digits, as the usual ROUGE scorer has them; in other scripts, any word."""
    return WORD.findall(text.lower()) or re.findall(r"\w+", text.lower())


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """F-measure of the longest common subsequence: 2 * common / (length + length)."""
    total = len(first) + len(second)
    return 2 * common_length(first, second) / total if total else 1.0


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, in one pass over `second` with `first` as the bits of an integer
    (Hyyro 2004)."""
    positions: dict[str, int] = {}
    for place, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << place
    mask = (1 << len(first)) - 1
    row = mask
    for word in second:
        matched = row & positions.get(word, 0)
        row = (row + matched | row - matched) & mask
    return len(first) - row.bit_count()
