"""Self-Instruct (arXiv 2212.10560) for one task: the demos, and what was written after them, as examples for more."""

import random
from typing import ClassVar

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.sample import Rejected, Sample
from dsrl.data.task import Demo
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import Desk, TeacherGenerator
from dsrl.stages.generate.similarity import Dissimilar


@component("stages.generate.self_instruct")
class SelfInstruct(TeacherGenerator):
    """Every prompt shows some demos and some earlier samples; what shares too much with the pool by ROUGE-L isn't
    taken. The pool grows by rounds: candidates of one round see the samples of those before, so that the result is the
    same however calls overlap."""

    place: ClassVar[str] = "self_instruct"
    inputs = ("definition",)
    templates: ClassVar[tuple[str, ...]] = ("self_instruct", *TEMPLATES)

    demos_per_prompt: int = Field(default=6, ge=1)
    own_per_prompt: int = Field(default=2, ge=0)
    """Samples of earlier rounds shown in each prompt, as far as there are any."""
    round_size: int = Field(default=32, ge=1)
    """Candidates of a round."""
    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """ROUGE-L to every input of the pool has to be less."""
    min_words: int = Field(default=4, ge=0)
    max_words: int | None = Field(default=None, ge=1)
    """Of an input; None: no bound, as inputs may hold whole contracts."""

    def novelty(self, state: PipelineState) -> Dissimilar:
        inputs = (demo.input for demo in state.task.demos)
        return Dissimilar.to(inputs, self.max_similarity, self.min_words, self.max_words)

    async def attempt(self, number: int, desk: Desk) -> Sample | Rejected:
        task = desk.state.task
        if not task.demos:
            raise StageFailed(
                "self_instruct: there is no pool to start from",
                got=f"0 demos of {task.name}",
                next_step="give task.demos=FILE.jsonl, or a baseline without seeds: experiment=baseline/targen",
            )
        pool = await desk.earlier(number // self.round_size * self.round_size)
        rng = random.Random(digest([self.seed, "candidate", number]))
        seeds = sorted(rng.sample(range(len(task.demos)), min(self.demos_per_prompt, len(task.demos))))
        own = [sample for sample in pool if sample.solution]
        shown = rng.sample(own, min(self.own_per_prompt, len(own)))
        examples = [task.demos[place] for place in seeds]
        examples += [Demo(input=sample.input, output=str(sample.solution)) for sample in shown]
        rng.shuffle(examples)
        prompt = prompts.render("self_instruct", task=task.turn(number), pattern=None, demos=examples, index=number)
        return await self.draft(number, desk, prompt, demos=tuple(seeds))
