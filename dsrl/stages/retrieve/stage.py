"""The stage `retrieve`: the teacher names keywords, the retriever finds passages that make samples diverse."""

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, field_validator

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.core.digest import normalised
from dsrl.core.errors import StageFailed
from dsrl.data.sample import Passage
from dsrl.forecast import defaults
from dsrl.forecast.estimate import Range
from dsrl.forecast.offline_clients import CacheOnlyClient, NotCachedError
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, ForecastState, StageForecast, Workload
from dsrl.llm import Endpoint
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.stage import Stage
from dsrl.stages.retrieve.passages import (
    PassageFilter,
    SelectedPassages,
    overlap_filter,
    quota_filter,
    score_filter,
    select_passages,
)
from dsrl.stages.retrieve.retriever import NoRetriever, Retriever

if TYPE_CHECKING:
    from dsrl.data.task import Task
    from dsrl.llm import Answer, Client
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

NUM_DEMOS = 10
"""Demos in the prompt for keywords."""
MIN_CHARS, MAX_CHARS = 2, 100
"""Characters of a keyword."""


class Keywords(BaseModel):  # sent with the request: another name or docstring would change its digest
    """The teacher's reply; one with unfit keywords goes back to it once."""

    keywords: list[str]

    @field_validator("keywords")
    @classmethod
    def _check(cls, keywords: list[str]) -> list[str]:
        for keyword in keywords:
            if not MIN_CHARS <= len(keyword.strip()) <= MAX_CHARS:
                raise ValueError(f"a keyword has {MIN_CHARS} to {MAX_CHARS} characters, unlike {keyword[:MAX_CHARS]!r}")
        return keywords


def unique_keywords(keywords: list[str]) -> tuple[str, ...]:
    """Drop empty keywords, and repeats that differ in case or spacing only; keep the order."""
    first: dict[str, str] = {}
    for keyword in keywords:
        first.setdefault(normalised(keyword), keyword.strip())
    return tuple(keyword for keyword in first.values() if keyword)


@component("stages.retrieve")
class Retrieve(Stage):
    """Searches keywords and selects enough passages for the samples that will be generated."""

    name = "retrieve"
    outputs = ("keywords", "passages")
    templates = ("task", "keywords", *TEMPLATES)
    key_by_output = True
    version = 2

    retriever: Retriever
    teacher: Endpoint
    keywords: Many[str] = ()
    """Searched instead of the teacher's; then the teacher is not asked."""
    num_keywords: int = Field(default=10, gt=0)
    """Keywords requested from the teacher."""
    domain: Literal["joins", "alone"] = "joins"
    """Search the task's domain, if it has one, together with the teacher's keywords or instead of them."""
    queries: Literal["each", "joined"] = "each"
    """Search each keyword by itself, or all of them as one query, as the authors' code does."""
    num_passages: int = Field(gt=0)
    """Maximum number of passages; if there are fewer than candidates, they are reused from the first."""
    reserve: float = Field(default=0.0, ge=0)
    """Additional passages for rejected candidates, as a fraction of `num_passages`."""
    max_passage_chars: int = Field(default=2048, gt=0)
    """Maximum characters of a passage; longer pieces are cut at the end of a sentence."""
    min_score: float = Field(default=0.0, ge=0)
    """Minimum BM25 score of a passage. Scores of different corpora aren't comparable."""
    quotas: dict[str, int] = Field(default_factory=dict)
    """Corpus -> maximum number of passages from it."""
    max_per_document: int | None = Field(default=None, gt=0)
    """Maximum number of passages from one document."""
    drop_test_overlap: bool = True
    """Drop passages that share 13 words in a row, or most of an item, with the test set."""
    on_empty: Literal["go_on", "stop"] = "go_on"
    """What to do if no keyword finds a passage."""
    seed: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Includes the test set if passages are compared with it. Later stages depend on the passages only, so a test
        set that drops the same ones changes no other key."""
        compares = self.drop_test_overlap and not isinstance(self.retriever, NoRetriever)
        return ("definition", "test") if compares else ("definition",)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        task = state.task
        searcher = self.retriever.open(context.store.root / "index", context.progress)
        if searcher is None:
            figures: dict[str, Any] = {"keywords": [], "hits": {}, "rows": {"in": 0, "out": 0}}
            return state.add(keywords=(), passages=(), figures=figures)
        keywords = self._configured_keywords(task) or asyncio.run(self._teacher_keywords(task, context))
        queries = keywords if self.queries == "each" else (" ".join(keywords),)
        number = round(self.num_passages * (1 + self.reserve))
        overlap: tuple[PassageFilter, ...] = ()
        if self.drop_test_overlap and task.test is not None:
            overlap = (overlap_filter([task.test.question(row) for row in task.test.rows()]),)

        def make_filters() -> tuple[PassageFilter, ...]:
            return (score_filter(self.min_score), *overlap, quota_filter(self.quotas, self.max_per_document))

        with closing(self.retriever.rerank_hits(searcher)) as reranked:
            selected = select_passages(reranked, queries, number, self.max_passage_chars, self.seed, make_filters)
        self._report(selected, context)
        hits = {query: len(found) for query, found in selected.hits.items()}
        rows = {"in": sum(hits.values()), "out": len(selected.passages)}
        figures = {"keywords": list(hits), "hits": hits, "dropped": dict(selected.dropped), "rows": rows}
        return state.add(keywords=keywords, passages=selected.passages, figures=figures)

    @property
    def prompted_endpoint(self) -> Endpoint:
        return self.teacher

    def forecast(self, before: ForecastState) -> StageForecast:
        """One request for keywords, and a placeholder passage of the expected length for the stages that follow."""
        size = self.retriever.mean_chars(self.max_passage_chars)
        if size is None:
            return before.forecast(Workload())
        passage = Passage(id="", text="x" * size, source="", offset=0, keyword="", rank=0, score=0.0)
        return before.forecast(self._expected_load(before), state=before.state.add(passages=(passage,)))

    def _expected_load(self, before: ForecastState) -> Workload:
        if self._configured_keywords(before.state.task):
            return Workload()
        client = CacheOnlyClient(self.teacher, before.reply_cache)
        try:
            asyncio.run(self._request_keywords(before.state.task, client))
        except NotCachedError:
            prompt_tokens = Range.of(client.usage.prompt_characters / CHARACTERS_PER_TOKEN)
            return Workload(
                self.teacher,
                requests=Range.of(1),
                input_tokens=prompt_tokens,
                output_tokens=defaults.KEYWORDS_TOKENS,
                basis="assumptions",
            )
        return Workload(self.teacher, cached=client.usage.cached)

    def _configured_keywords(self, task: "Task") -> tuple[str, ...]:
        """Keywords that need no teacher; empty if it must be asked."""
        if self.keywords:
            return unique_keywords(list(self.keywords))
        return (task.domain,) if self.domain == "alone" and task.domain else ()

    async def _teacher_keywords(self, task: "Task", context: "Context") -> tuple[str, ...]:
        """The task's domain and the teacher's keywords. Raises `StageFailed` if the teacher names none."""
        async with context.connect(self.teacher, "teacher") as client:
            answer = await self._request_keywords(task, client)
        keywords = unique_keywords(answer.value.keywords if answer.value else [])[: self.num_keywords]
        if not keywords:
            raise StageFailed(
                f"retrieve: {self.teacher.model} returned no keywords",
                got=f"{answer.error}: {answer.detail}" if answer.error else "an empty list",
                next_step="set retriever.keywords=[...], or retriever=none, or use another teacher",
            )
        return unique_keywords([task.domain or "", *keywords])

    async def _request_keywords(self, task: "Task", client: "Client") -> "Answer[Keywords]":
        prompt = prompts.render(
            "keywords", task=task, pattern=None, demos=task.demos[:NUM_DEMOS], count=self.num_keywords
        )
        return await ask_until_usable(client.ask, [{"role": "user", "content": prompt}], Keywords)

    def _report(self, selected: SelectedPassages, context: "Context") -> None:
        """Print what was dropped or not found. Raises `StageFailed` without passages if `on_empty` is `stop`."""
        overlapping = sum(count for reason, count in selected.dropped.items() if reason.endswith("test item"))
        if overlapping:
            context.progress.say(f"retrieve: dropped {overlapping} passages that overlap the test set")
        if selected.passages:
            if fruitless := [query for query, hits in selected.hits.items() if not hits]:
                context.progress.say(f"retrieve: no passages for {', '.join(fruitless)[:200]}")
            return
        reasons = ", ".join(f"{count} dropped: {reason}" for reason, count in selected.dropped.items())
        problem = f"retrieve: no passages for any of {len(selected.hits)} keywords" + (
            f" ({reasons})" if reasons else ""
        )
        if self.on_empty == "stop":
            raise StageFailed(
                problem,
                got=", ".join(selected.hits)[:200],
                next_step="set retriever.keywords=[...] or retriever.corpora=[...], or retrieve.on_empty=go_on",
            )
        context.progress.warn(f"{problem}; samples are generated without any (retrieve.on_empty=stop stops instead)")
