"""The stage behind `dsrl difficulty`: a judge compares test items two at a time, and the battles become ratings."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import component, record
from dsrl.core.errors import StageFailed, UserError
from dsrl.core.estimate import Range
from dsrl.core.parquet import write_table
from dsrl.data.difficulty_tiers import ItemRating, rating_tier
from dsrl.data.images import chat_content, make_prompt
from dsrl.data.source import Item
from dsrl.forecast.workload import Expectation, Load, Outlook
from dsrl.llm import Endpoint
from dsrl.llm.client import together
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.difficulty.bradley_terry import Ratings, battles, groups, rate
from dsrl.stages.difficulty.opponents import pairs

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.progress.progress import Task as Shown

TEMPLATE = "battle"
SCORES = {"first": 1.0, "second": 0.0, "tie": 0.5}
REASON_TOKENS = 45.0


class Judgement(BaseModel):
    """What the judge is asked for."""

    harder: Literal["first", "second", "tie"]
    reason: str


@record
class Battle:
    """One comparison, as it was judged: a row of `battles.parquet`."""

    first: str
    """Id of the item that was shown first."""
    second: str
    harder: str | None
    """`first`, `second` or `tie`; None where no judgement came."""
    reason: str
    call: str
    """Of the reply, in the calls store."""


@component("stages.difficulty")
class Difficulty(Stage):
    """Every test item meets `opponents` others; which is harder is for the judge to say, in seeded order of showing."""

    name: ClassVar[str] = "difficulty"
    inputs = ("definition", "test")
    outputs = ()
    templates: ClassVar[tuple[str, ...]] = (TEMPLATE, *TEMPLATES)

    teacher: Endpoint
    """The judge."""
    opponents: int = Field(default=128, ge=1)
    """Others that each item meets."""
    temperature: float = Field(default=0.6, ge=0)
    ridge: float = Field(default=0.01, gt=0)
    """Pulls ratings to the middle, so that an item that always wins or loses has one."""
    bootstraps: int = Field(default=100, ge=0)
    """Draws of the battles; the rating is the median of their ratings."""
    subject: str | None = None
    """Only items of this subject meet others, such as one version of each problem; None: all."""
    seed: int = 0

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        items = self._items(state, context)
        fought = asyncio.run(self._fight(items, state, context))
        names = {name: number for number, name in enumerate(items)}
        decided = [battle for battle in fought if battle.harder is not None]
        if not decided:
            raise StageFailed("difficulty: no battle was decided", next_step="see the judge's replies: dsrl doctor")
        columns = ([names[one.first] for one in decided], [names[one.second] for one in decided])
        table = battles(*columns, [SCORES[one.harder or ""] for one in decided], len(items))
        ratings = rate(table, ridge=self.ridge, bootstraps=self.bootstraps, seed=self.seed)
        if (apart := groups(table)) > 1:
            context.progress.warn(f"difficulty: {apart} groups of items never met; their ratings can't be compared")
        rows = _rated(items, decided, ratings)
        write_table(context.scratch / "battles.parquet", fought, Battle)
        write_table(context.scratch / "ratings.parquet", rows, ItemRating)
        return state.add(figures=_figures(rows, fought))

    def expect(self, outlook: Outlook) -> Expectation:
        source = outlook.state.task.test
        items = source.count() if source else None
        if not items:
            return outlook.expects()
        requests = Range.of(len(pairs(items, self.opponents, self.seed)))
        read = requests * (outlook.question_tokens() * 2 + Range.of(len(prompts.literal_text(TEMPLATE)) / 3.6))
        written = requests * Range(0.4, 1.0, 2.5) * REASON_TOKENS
        waits = outlook.waiting(self.teacher, requests)
        load = Load(
            endpoint=self.teacher,
            requests=requests,
            input_tokens=read,
            output_tokens=written,
            seconds=waits,
            basis="assumptions",
        )
        return outlook.expects(load)

    def _items(self, state: PipelineState, context: "Context") -> dict[str, Item]:
        """By id; items of the same words and pictures are one, and the first of siblings stands for all."""
        source = state.task.test
        if source is None:
            raise UserError(
                "difficulty: this task has no test set",
                next_step="give task.test.path=FILE task.test.input=... task.test.output=...",
            )
        items = source.load(state.task.answer, context.gallery(state.task))
        found = {item.id: item for item in _first_of_siblings(self._of_subject(items))}
        if len(found) < 2:
            raise UserError("difficulty: it takes two items to compare", got=f"{len(found)}")
        return found

    def _of_subject(self, items: Sequence[Item]) -> list[Item]:
        own = [item for item in items if self.subject in (None, item.subject)]
        if own:
            return own
        raise UserError(
            "difficulty.subject: no test item is of this subject",
            got=self.subject,
            allowed=sorted({item.subject for item in items if item.subject})
            or "none: task.test.subject names no column",
        )

    async def _fight(self, items: dict[str, Item], state: PipelineState, context: "Context") -> list[Battle]:
        names = list(items)
        drawn = [(names[one], names[other]) for one, other in pairs(len(names), self.opponents, self.seed)]
        async with context.connect(self.teacher, "teacher") as client:
            with context.progress.task("battles", len(drawn)) as shown:
                return await together(self._battle(*pair, items, state, client, shown) for pair in drawn)

    async def _battle(
        self, first: str, second: str, items: dict[str, Item], state: PipelineState, client: "Client", shown: "Shown"
    ) -> Battle:
        one, other = items[first], items[second]
        asked = {"first": one.input, "second": other.input}
        prompt = prompts.render(TEMPLATE, task=state.task, pattern=None, demos=(), **asked)
        messages = [{"role": "user", "content": chat_content(make_prompt(prompt, one.images + other.images))}]
        answer = await client.ask(messages, Judgement, index=self.seed, temperature=self.temperature)
        shown.advance(1)
        harder = answer.value.harder if answer.value else None
        reason = answer.value.reason if answer.value else f"{answer.error}: {answer.detail}"
        return Battle(first=first, second=second, harder=harder, reason=reason, call=answer.calls[-1])


def _first_of_siblings(items: Sequence[Item]) -> list[Item]:
    """All items without a group, and the first of each."""
    first = {item.group: item for item in reversed(items)}
    return [item for item in items if item.group is None or item is first[item.group]]


def _rated(items: dict[str, Item], decided: Sequence[Battle], ratings: Ratings) -> list[ItemRating]:
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
    return [
        ItemRating(
            id=name,
            input=item.input,
            group=item.group,
            rating=_number(value),
            low=_number(low),
            high=_number(high),
            tier=rating_tier(value),
            wins=won[name],
            ties=tied[name],
            losses=lost[name],
        )
        for (name, item), value, low, high in values
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _figures(rows: Sequence[ItemRating], fought: Sequence[Battle]) -> dict[str, object]:
    tiers, verdicts = Counter(row.tier for row in rows), Counter(battle.harder for battle in fought)
    return {
        "items": len(rows),
        "battles": len(fought),
        "easy": tiers["easy"],
        "medium": tiers["medium"],
        "hard": tiers["hard"],
        "unrated": tiers[None],
        "ties": verdicts["tie"],
        "undecided": verdicts[None],
        "first_is_harder": verdicts["first"] / max(1, verdicts["first"] + verdicts["second"]),
    }
