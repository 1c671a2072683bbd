"""Keywords from the teacher, passages from the retriever: the raw material that makes samples differ."""

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from dsrl import priors, prompts
from dsrl.digest import normalised
from dsrl.errors import StageFailed
from dsrl.estimate import Range
from dsrl.forecast import CHARACTERS_PER_TOKEN, Expectation, Load, Outlook
from dsrl.llm import Endpoint
from dsrl.llm.dry import DryClient, UnpaidError
from dsrl.llm.structured import TEMPLATES
from dsrl.part import Many, part
from dsrl.retrieve.passages import interleave
from dsrl.retrieve.retriever import Retriever
from dsrl.sample import Passage
from dsrl.stage import Stage

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.llm import Answer, Client
    from dsrl.study import Study
    from dsrl.task import Task

NUM_DEMOS = 10
"""Demos shown when keywords are asked for."""


class Keywords(BaseModel):
    """The teacher's reply."""

    keywords: list[str]


@part
class Retrieve(Stage):
    """Names keywords, searches each by itself, and keeps enough passages for the samples that are to be written."""

    name = "retrieve"
    needs = ("definition",)
    adds = ("keywords", "passages")
    templates = ("task", "keywords", *TEMPLATES)

    retriever: Retriever
    teacher: Endpoint
    keywords: Many[str] = ()
    """Searched instead of the teacher's, which is then not asked."""
    num_keywords: int = Field(default=10, gt=0)
    """Keywords asked of the teacher; the task's domain is searched besides."""
    num_passages: int = Field(gt=0)
    """Most passages to keep; where there are fewer than candidates they are used again from the first."""
    max_passage_chars: int = Field(default=2048, gt=0)
    """Longest passage, in characters; a longer document gives one piece that ends where a sentence does."""
    seed: int = 0

    def __call__(self, study: "Study", context: "Context") -> "Study":
        searcher = self.retriever.open(context.store.root / "index", context.progress)
        if searcher is None:
            return study.add(keywords=(), passages=(), figures={"keywords": [], "hits": {}, "rows": _rows(0, 0)})
        keywords = self.keywords or asyncio.run(self._ask(study.task, context))
        hits = {keyword: searcher.search(keyword, self.num_passages) for keyword in keywords}
        found = interleave(hits, self.max_passage_chars, self.seed)
        passages = tuple(itertools.islice(found, self.num_passages))
        if not passages:
            context.progress.warn(
                f"retrieve: none of {len(keywords)} keywords finds a passage; samples are written without any"
            )
        return study.add(keywords=keywords, passages=passages, figures=_figures(hits, passages))

    def expect(self, outlook: Outlook) -> Expectation:
        """One request for keywords; which passages they find is known once the stage has run."""
        size = self.retriever.typical_characters(self.max_passage_chars)
        if size is None:
            return outlook.expects(Load())
        passage = Passage(id="", text="x" * size, source="", offset=0, keyword="", rank=0, score=0.0)
        return outlook.expects(self._load(outlook), study=outlook.study.add(passages=(passage,)))

    def _load(self, outlook: Outlook) -> Load:
        if self.keywords:
            return Load()
        client = DryClient(self.teacher, outlook.calls)
        try:
            asyncio.run(self._answer(outlook.study.task, client))
        except UnpaidError:
            read = Range.of(client.tally.prompt_characters / CHARACTERS_PER_TOKEN)
            written = priors.KEYWORDS_TOKENS
            return Load(
                self.teacher, requests=Range.of(1), input_tokens=read, output_tokens=written, basis="assumptions"
            )
        return Load(self.teacher, held=client.tally.held)

    async def _answer(self, task: "Task", client: "Client") -> "Answer[Keywords]":
        prompt = prompts.render(
            "keywords", task=task, pattern=None, demos=task.demos[:NUM_DEMOS], count=self.num_keywords
        )
        return await client.ask([{"role": "user", "content": prompt}], Keywords)

    async def _ask(self, task: "Task", context: "Context") -> tuple[str, ...]:
        """The task's domain and the teacher's keywords. Raises `StageFailed` where the teacher gives none."""
        async with context.connect(self.teacher, "teacher") as client:
            answer = await self._answer(task, client)
        named = distinct(answer.value.keywords if answer.value else [])[: self.num_keywords]
        if not named:
            raise StageFailed(
                f"retrieve: {self.teacher.model} named no keywords",
                got=f"{answer.error}: {answer.detail}" if answer.error else "an empty list",
                next_step="run again, give the stage keywords of your own (keywords: [...]), or retriever=none",
            )
        return distinct([task.domain or "", *named])


def distinct(keywords: list[str]) -> tuple[str, ...]:
    """In order, without empty ones and without repeats that differ in case or spacing only."""
    first: dict[str, str] = {}
    for keyword in keywords:
        first.setdefault(normalised(keyword), keyword.strip())
    return tuple(keyword for keyword in first.values() if keyword)


def _figures(hits: dict[str, Any], passages: tuple[Passage, ...]) -> dict[str, Any]:
    counts = {keyword: len(found) for keyword, found in hits.items()}
    rows = _rows(sum(counts.values()), len(passages))
    return {"keywords": list(counts), "hits": counts, "rows": rows}


def _rows(entered: int, left: int) -> dict[str, int]:
    return {"in": entered, "out": left}
