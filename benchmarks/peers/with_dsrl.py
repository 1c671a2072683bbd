"""dsrl's client with its reply cache, and the real `generate` stage with majority votes.

Works beside `chain` and `plain`: `stage`, `count` samples made by the stage; `quickstart`, the same on the quickstart's
task as it is. It also prints the labels, to compare stop rules.
"""

import asyncio
import io
import time

import common
import yaml

from dsrl.core.resources import home
from dsrl.llm import Client, Endpoint, Ledger
from dsrl.llm.endpoint import Price
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.config import build
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store
from dsrl.stages.generate import Generate, MajorityVote

PRICE = Price(input=2.5, cached_input=1.25, output=10.0, date="2026-11-20")
"""Price of gpt-4o."""


def teacher(asked) -> Endpoint:
    return Endpoint(
        model=common.MODEL if asked.work != "quickstart" else "offline-rules-v1",
        base_url=asked.url,
        concurrency=asked.concurrency,
        timeout=common.TIMEOUT,
        temperature=common.TEMPERATURE,
        price=PRICE,
    )


async def row(client: Client, endpoint: Endpoint, number: int, work: str) -> bool:
    request = endpoint.request(common.message(common.question(number)))
    replies = await client.complete(request)
    if work == "chain" and replies[0].text is not None:
        request = endpoint.request(common.message(common.vote(replies[0].text)))
        replies = await client.complete(request, count=common.VOTES)
    return all(reply.text is not None for reply in replies)


async def calls(asked) -> int:
    """Number of complete rows, with as many in flight as a stage has."""
    endpoint, store = teacher(asked), ReplyCache(asked.folder / "calls")
    numbers = iter(range(asked.count))

    async def work(client: Client) -> int:
        return sum([await row(client, endpoint, number, asked.work) for number in numbers])

    async with Client(endpoint, store, Ledger()) as client:
        rows = await asyncio.gather(*(work(client) for _ in range(endpoint.window)))
    store.close()
    return sum(rows)


def stage(asked) -> dict:
    """Labels and usage of the stage."""
    endpoint = teacher(asked)
    task = build(yaml.safe_load((home() / "conf/task/quickstart.yaml").read_text(encoding="utf-8")), "task")
    verify = (MajorityVote(teacher=endpoint, votes=common.VOTES, stop=asked.stop),)
    made = Generate(teacher=endpoint, n=asked.count, verify=verify, pattern=False)
    asked.folder.mkdir(parents=True, exist_ok=True)
    context = Context(
        run_dir=asked.folder,
        store=Store(asked.folder / "store"),
        reply_cache=ReplyCache(asked.folder / "calls"),
        progress=Progress(io.StringIO()),
        stage="generate",
    )
    state = made(PipelineState(task=task), context)
    context.close()
    labels = {str(sample.provenance.index): sample.answer for sample in state.samples}
    tried = {str(one.provenance.index): None for one in state.rejected}
    spent = context.ledger.totals()["teacher"]
    return {"rows": len(state.samples), "labels": {**tried, **labels}, "spent": spent}


def main() -> None:
    asked = common.arguments()
    started = time.perf_counter()
    if asked.work in ("stage", "quickstart"):
        common.tell(started, **stage(asked))
    else:
        common.tell(started, asyncio.run(calls(asked)))


main()
