"""The stage behind `dsrl difficulty`: a judge compares test items in pairs, and the outcomes become ratings."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import component, record
from dsrl.core.errors import StageFailed, UserError
from dsrl.core.parquet import write_table
from dsrl.data.difficulty_tiers import ItemRating, rating_tier
from dsrl.data.images import chat_content, make_prompt
from dsrl.data.source import Item
from dsrl.data.task import Task
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import ForecastState, StageForecast, Workload
from dsrl.llm import Endpoint
from dsrl.llm.client import gather_or_cancel
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.difficulty.bradley_terry import Ratings, draw_pairs, make_outcomes, num_groups, rate

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.progress.progress import Task as ProgressTask

TEMPLATE = "battle"
SCORES = {"first": 1.0, "second": 0.0, "tie": 0.5}
REASON_TOKENS = 45.0


class Judgement(BaseModel):  # sent with the request: another name or docstring would change its digest
    """What the judge is asked for."""

    harder: Literal["first", "second", "tie"]
    reason: str


@record
class Battle:
    """One judged comparison: a row of `battles.parquet`."""

    first: str
    """Id of the item that was shown first."""
    second: str
    harder: str | None
    """`first`, `second` or `tie`; None if no judgement came."""
    reason: str
    call: str
    """Id of the reply in the cache."""


@component("stages.difficulty")
class Difficulty(Stage):
    """Every test item meets `opponents` others, and the judge says which of the two is harder; which one it sees first
    is drawn by the seed."""

    name: ClassVar[str] = "difficulty"
    inputs = ("definition", "test")
    outputs = ()
    templates: ClassVar[tuple[str, ...]] = (TEMPLATE, *TEMPLATES)

    teacher: Endpoint
    """The judge."""
    opponents: int = Field(default=128, ge=1)
    """Opponents per item."""
    temperature: float = Field(default=0.6, ge=0)
    ridge: float = Field(default=0.01, gt=0)
    """Pulls ratings to the middle, so that an item that always wins or loses has a finite one."""
    bootstraps: int = Field(default=100, ge=0)
    """Resamplings of the battles; an item's rating is the median of its ratings in these."""
    subject: str | None = None
    """Compare only items of this subject, such as one version of each problem. None: all."""
    seed: int = 0

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        items = self._items(state, context)
        battles = asyncio.run(self._judge_all(items, state, context))
        numbers = {name: number for number, name in enumerate(items)}
        decided = [battle for battle in battles if battle.harder is not None]
        if not decided:
            raise StageFailed("difficulty: no battle was decided", next_step="see the judge's replies: dsrl doctor")
        outcomes = make_outcomes(
            [numbers[battle.first] for battle in decided],
            [numbers[battle.second] for battle in decided],
            [SCORES[battle.harder or ""] for battle in decided],
            len(items),
        )
        ratings = rate(outcomes, ridge=self.ridge, bootstraps=self.bootstraps, seed=self.seed)
        if (groups := num_groups(outcomes)) > 1:
            context.progress.warn(f"difficulty: {groups} groups of items never met; their ratings can't be compared")
        rows = rating_rows(items, decided, ratings)
        write_table(context.scratch / "battles.parquet", battles, Battle)
        write_table(context.scratch / "ratings.parquet", rows, ItemRating)
        return state.add(figures=difficulty_figures(rows, battles))

    @property
    def prompted_endpoint(self) -> Endpoint:
        return self.teacher

    def shows_images(self, task: Task, *, in_samples: bool) -> bool:
        return in_samples or bool(task.test and task.test.images)

    def forecast(self, before: ForecastState) -> StageForecast:
        source = before.state.task.test
        items = source.count() if source else None
        if not items:
            return before.forecast()
        requests = Range.of(len(draw_pairs(items, self.opponents, self.seed)))
        read = requests * (before.question_tokens() * 2 + Range.of(len(prompts.literal_text(TEMPLATE)) / 3.6))
        written = requests * Range(0.4, 1.0, 2.5) * REASON_TOKENS
        waits = before.waiting(self.teacher, requests)
        load = Workload(
            endpoint=self.teacher,
            requests=requests,
            input_tokens=read,
            output_tokens=written,
            seconds=waits,
            basis="assumptions",
        )
        return before.forecast(load)

    def _items(self, state: PipelineState, context: "Context") -> dict[str, Item]:
        """The items to compare by id: of items with equal words and images one, and the first of each group."""
        source = state.task.test
        if source is None:
            raise UserError(
                "difficulty: this task has no test set",
                next_step="give task.test.path=FILE task.test.input=... task.test.output=...",
            )
        items = source.load(state.task.answer, context.gallery(state.task))
        chosen = [item for item in items if self.subject in (None, item.subject)]
        if not chosen:
            raise UserError(
                "difficulty.subject: no test item has this subject",
                got=self.subject,
                allowed=sorted({item.subject for item in items if item.subject})
                or "none: task.test.subject names no column",
            )
        first = {item.group: item for item in reversed(chosen)}
        by_id = {item.id: item for item in chosen if item.group is None or item is first[item.group]}
        if len(by_id) < 2:
            raise UserError("difficulty: at least two items are needed", got=f"{len(by_id)}")
        return by_id

    async def _judge_all(self, items: dict[str, Item], state: PipelineState, context: "Context") -> list[Battle]:
        names = list(items)
        pairs = [(names[one], names[other]) for one, other in draw_pairs(len(names), self.opponents, self.seed)]
        async with context.connect(self.teacher, "teacher") as client:
            with context.progress.task("battles", len(pairs)) as progress:
                return await gather_or_cancel(self._judge(*pair, items, state, client, progress) for pair in pairs)

    async def _judge(
        self,
        first: str,
        second: str,
        items: dict[str, Item],
        state: PipelineState,
        client: "Client",
        progress: "ProgressTask",
    ) -> Battle:
        one, other = items[first], items[second]
        prompt = prompts.render(TEMPLATE, task=state.task, pattern=None, demos=(), first=one.input, second=other.input)
        messages = [{"role": "user", "content": chat_content(make_prompt(prompt, one.images + other.images))}]
        answer = await client.ask(messages, Judgement, index=self.seed, temperature=self.temperature)
        progress.advance(1)
        harder = answer.value.harder if answer.value else None
        reason = answer.value.reason if answer.value else f"{answer.error}: {answer.detail}"
        return Battle(first=first, second=second, harder=harder, reason=reason, call=answer.calls[-1])


def rating_rows(items: dict[str, Item], decided: Sequence[Battle], ratings: Ratings) -> list[ItemRating]:
    won: Counter[str] = Counter()
    tied: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for battle in decided:
        ends = (battle.first, battle.second)
        if battle.harder == "tie":
            tied.update(ends)
        else:
            won[ends[battle.harder == "second"]] += 1
            lost[ends[battle.harder == "first"]] += 1
    values = zip(items.items(), ratings.rating.tolist(), ratings.low.tolist(), ratings.high.tolist(), strict=True)

    def finite(value: float) -> float | None:
        return None if math.isnan(value) else value

    return [
        ItemRating(
            id=name,
            input=item.input,
            group=item.group,
            rating=finite(value),
            low=finite(low),
            high=finite(high),
            tier=rating_tier(value),
            wins=won[name],
            ties=tied[name],
            losses=lost[name],
        )
        for (name, item), value, low, high in values
    ]


def difficulty_figures(rows: Sequence[ItemRating], battles: Sequence[Battle]) -> dict[str, object]:
    tiers, verdicts = Counter(row.tier for row in rows), Counter(battle.harder for battle in battles)
    return {
        "items": len(rows),
        "battles": len(battles),
        "easy": tiers["easy"],
        "medium": tiers["medium"],
        "hard": tiers["hard"],
        "unrated": tiers[None],
        "ties": verdicts["tie"],
        "undecided": verdicts[None],
        "first_is_harder": verdicts["first"] / max(1, verdicts["first"] + verdicts["second"]),
    }
