"""Keywords from the teacher, passages from the retriever: the raw material that makes samples differ."""

import asyncio
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.core.errors import StageFailed
from dsrl.core.estimate import Range
from dsrl.data.sample import Passage
from dsrl.forecast import defaults
from dsrl.forecast.offline_clients import DryClient, UnpaidError
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, Expectation, Load, Outlook
from dsrl.llm import Endpoint
from dsrl.llm.structured.answer import TEMPLATES, usable
from dsrl.pipeline.stage import Stage
from dsrl.stages.retrieve.keywords import Keywords, distinct
from dsrl.stages.retrieve.overlap import TestOverlap
from dsrl.stages.retrieve.passages import Fault, Found, gather, low_score, over_quota
from dsrl.stages.retrieve.retriever import NoRetriever, Retriever

if TYPE_CHECKING:
    from dsrl.data.task import Task
    from dsrl.llm import Answer, Client
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

NUM_DEMOS = 10
"""Demos shown when keywords are asked for."""


@component("stages.retrieve")
class Retrieve(Stage):
    """Names keywords, searches each by itself, and keeps enough passages for the samples that are to be written."""

    name = "retrieve"
    outputs = ("keywords", "passages")
    templates = ("task", "keywords", *TEMPLATES)
    key_by_output = True
    version = 2

    retriever: Retriever
    teacher: Endpoint
    keywords: Many[str] = ()
    """Searched instead of the teacher's, which is then not asked."""
    num_keywords: int = Field(default=10, gt=0)
    """Keywords asked of the teacher."""
    domain: Literal["joins", "alone"] = "joins"
    """Whether the task's domain, where it has one, is searched besides the teacher's keywords or instead of them."""
    queries: Literal["each", "joined"] = "each"
    """Whether each keyword is a query, or all of them together are one, as in the authors' code."""
    num_passages: int = Field(gt=0)
    """Most passages to keep; where there are fewer than candidates they are used again from the first."""
    reserve: float = Field(default=0.0, ge=0)
    """So many more of them, as a share, for candidates that are rejected."""
    max_passage_chars: int = Field(default=2048, gt=0)
    """Longest passage, in characters; a longer piece gives a part that ends where a sentence does."""
    min_score: float = Field(default=0.0, ge=0)
    """Least BM25 score of a passage; scores of different corpora aren't comparable."""
    quotas: dict[str, int] = Field(default_factory=dict)
    """Corpus -> most passages of it."""
    max_per_document: int | None = Field(default=None, gt=0)
    """Most passages of one document."""
    drop_test_overlap: bool = True
    """Leave out passages that share 13 words in a row, or most of an item, with the test set."""
    on_empty: Literal["go_on", "stop"] = "go_on"
    """What to do where no keyword finds a passage."""
    seed: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The test set too, where passages are held against it. Later stages go by the passages that are left, so a
        test set that drops none of them, or the same ones, is nothing to them."""
        against = self.drop_test_overlap and not isinstance(self.retriever, NoRetriever)
        return ("definition", "test") if against else ("definition",)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        searcher = self.retriever.open(context.store.root / "index", context.progress)
        if searcher is None:
            return state.add(keywords=(), passages=(), figures={"keywords": [], "hits": {}, "rows": _rows(0, 0)})
        keywords = self._given(state.task) or asyncio.run(self._ask(state.task, context))
        queries = keywords if self.queries == "each" else (" ".join(keywords),)
        number = round(self.num_passages * (1 + self.reserve))
        faults = partial(self._faults, self._overlap(state.task))
        with closing(self.retriever.ordered(searcher)) as ordered:
            found = gather(ordered, queries, number, self.max_passage_chars, self.seed, faults)
        self._tell(found, context)
        return state.add(keywords=keywords, passages=found.passages, figures=_figures(found))

    @property
    def prompted_endpoint(self) -> Endpoint:
        return self.teacher

    def expect(self, outlook: Outlook) -> Expectation:
        """One request for keywords; which passages they find is known once the stage has run."""
        size = self.retriever.typical_characters(self.max_passage_chars)
        if size is None:
            return outlook.expects(Load())
        passage = Passage(id="", text="x" * size, source="", offset=0, keyword="", rank=0, score=0.0)
        return outlook.expects(self._load(outlook), state=outlook.state.add(passages=(passage,)))

    def _load(self, outlook: Outlook) -> Load:
        if self._given(outlook.state.task):
            return Load()
        client = DryClient(self.teacher, outlook.calls)
        try:
            asyncio.run(self._answer(outlook.state.task, client))
        except UnpaidError:
            read = Range.of(client.tally.prompt_characters / CHARACTERS_PER_TOKEN)
            written = defaults.KEYWORDS_TOKENS
            return Load(
                self.teacher, requests=Range.of(1), input_tokens=read, output_tokens=written, basis="assumptions"
            )
        return Load(self.teacher, held=client.tally.held)

    def _given(self, task: "Task") -> tuple[str, ...]:
        """The keywords for which nobody has to be asked; none where the teacher is."""
        if self.keywords:
            return distinct(list(self.keywords))
        return (task.domain,) if self.domain == "alone" and task.domain else ()

    async def _answer(self, task: "Task", client: "Client") -> "Answer[Keywords]":
        prompt = prompts.render(
            "keywords", task=task, pattern=None, demos=task.demos[:NUM_DEMOS], count=self.num_keywords
        )
        return await usable(client.ask, [{"role": "user", "content": prompt}], Keywords)

    async def _ask(self, task: "Task", context: "Context") -> tuple[str, ...]:
        """The task's domain and the teacher's keywords. Raises `StageFailed` where the teacher gives none."""
        async with context.connect(self.teacher, "teacher") as client:
            answer = await self._answer(task, client)
        named = distinct(answer.value.keywords if answer.value else [])[: self.num_keywords]
        if not named:
            raise StageFailed(
                f"retrieve: {self.teacher.model} named no keywords",
                got=f"{answer.error}: {answer.detail}" if answer.error else "an empty list",
                next_step="give keywords of your own (retriever.keywords=[...]), or retriever=none, or another teacher",
            )
        return distinct([task.domain or "", *named])

    def _faults(self, overlap: tuple[Fault, ...]) -> tuple[Fault, ...]:
        return (low_score(self.min_score), *overlap, over_quota(self.quotas, self.max_per_document))

    def _overlap(self, task: "Task") -> tuple[Fault, ...]:
        if not self.drop_test_overlap or task.test is None:
            return ()
        return (TestOverlap([task.test.question(row) for row in task.test.rows()]),)

    def _tell(self, found: Found, context: "Context") -> None:
        """What a user should know. Raises `StageFailed` where nothing was found and that is not to be put up with."""
        overlapping = sum(count for reason, count in found.dropped.items() if reason.endswith("test item"))
        if overlapping:
            context.progress.say(f"retrieve: {overlapping} passages left out, because they overlap the test set")
        fruitless = [query for query, hits in found.hits.items() if not hits]
        if found.passages:
            if fruitless:
                context.progress.say(f"retrieve: nothing found for {', '.join(fruitless)[:200]}")
            return
        reasons = ", ".join(f"{count} dropped: {reason}" for reason, count in found.dropped.items())
        told = f"retrieve: none of {len(found.hits)} keywords finds a passage" + (f" ({reasons})" if reasons else "")
        if self.on_empty == "stop":
            raise StageFailed(
                told,
                got=", ".join(found.hits)[:200],
                next_step="give other retriever.keywords=[...] or retriever.corpora=[...], or retrieve.on_empty=go_on",
            )
        context.progress.warn(f"{told}; samples are written without any (retrieve.on_empty=stop would stop here)")


def _figures(found: Found) -> dict[str, Any]:
    counts = {keyword: len(hits) for keyword, hits in found.hits.items()}
    rows = _rows(sum(counts.values()), len(found.passages))
    return {"keywords": list(counts), "hits": counts, "dropped": dict(found.dropped), "rows": rows}


def _rows(entered: int, left: int) -> dict[str, int]:
    return {"in": entered, "out": left}
