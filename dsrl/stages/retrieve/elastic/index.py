"""Filling indexes on the server. An alias is set when an index is whole: what has none is never searched.

Every passage has its number for an id and is only ever created, never replaced: a request that is sent twice, a killed
run that starts again and a second run at the same time all come to the same index, without deleted entries that would
count in the scores.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.elastic import mapping
from dsrl.stages.retrieve.elastic.access import Access
from dsrl.stages.retrieve.elastic.connection import FIRST_WAIT, LONGEST_WAIT
from dsrl.stages.retrieve.elastic.failures import another_product, refused
from dsrl.stages.retrieve.elastic.mapping import Place
from dsrl.stages.retrieve.index_build import show_progress
from dsrl.stages.retrieve.ingest import IngestReport, Piece

if TYPE_CHECKING:
    from elasticsearch import AsyncElasticsearch

OLDEST = 7
"""First release that is supported."""
AT_ONCE = 200
"""Passages that a sender takes at a time."""
THERE = 409
"""Status of a passage that was created before."""
TIME_TO_RECOVER = "5s"
"""How long a cluster that has just started may be without all of its data."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage on its way into an index."""

    place: Place
    number: int
    """Its place among all passages."""
    piece: Piece


@dataclass(frozen=True)
class Whole:
    """What an index is known to hold."""

    passages: int
    report: IngestReport
    """How its corpus and those before it were read."""


@dataclass(frozen=True)
class Load:
    """How an index is made, and how fast it may be filled."""

    senders: int
    """Requests in flight."""
    request_bytes: int
    settings: dict[str, Any]
    measure: tuple[str, int | None]
    """What progress is counted in, and how much there is of it."""


async def check_server(client: "AsyncElasticsearch", access: Access) -> None:
    """Raises `UserError` within seconds unless a healthy Elasticsearch answers and lets us in."""
    from elasticsearch import NotFoundError

    retries, patience = min(access.retries, 2), min(access.timeout, 10.0)
    quick = client.options(max_retries=retries, retry_on_timeout=False, request_timeout=patience)
    try:
        release = str((await quick.info())["version"]["number"])
    except (NotFoundError, KeyError, TypeError) as error:
        raise another_product(access) from error
    if int(release.partition(".")[0]) < OLDEST:
        raise UserError(f"Elasticsearch: {access.url} is too old", got=release, allowed=f"release {OLDEST} or later")
    health = await quick.options(ignore_status=408).cluster.health(wait_for_status="yellow", timeout=TIME_TO_RECOVER)
    if health["status"] == "red":
        raise StageFailed(
            f"Elasticsearch: the cluster at {access.url} lacks data: it is red",
            got=f"{health['unassigned_shards']} shards have no node",
            allowed="yellow or green",
            next_step="GET _cluster/allocation/explain says why",
        )


async def whole(client: "AsyncElasticsearch", place: Place) -> Whole | None:
    """An index that is there and complete, None where it isn't. Raises `UserError` for one that isn't ours or has been
    changed."""
    if not await client.indices.exists_alias(name=place.alias):
        return None
    ((name, found),) = (await client.indices.get_mapping(index=place.alias)).items()
    mapping.check_mapping(name, found["mappings"])
    kept = found["mappings"].get("_meta", {})
    counted = (await client.count(index=place.alias))["count"]
    if kept.get("passages") != counted or "report" not in kept:
        raise UserError(
            f"Elasticsearch: index {name} was changed after it was made",
            got=f"{counted} passages",
            allowed=f"{kept.get('passages')} passages",
            next_step="delete it, and it is made again, or restore it",
        )
    return Whole(counted, IngestReport.from_json(kept["report"]))


async def create(client: "AsyncElasticsearch", place: Place, settings: dict[str, Any]) -> None:
    """An empty index, or the one that another run has begun."""
    from elasticsearch import BadRequestError

    try:
        await client.indices.create(index=place.index, settings=settings, mappings=mapping.MAPPINGS)
    except BadRequestError as error:
        if error.error != "resource_already_exists_exception":
            raise
        found = await client.indices.get_mapping(index=place.index)
        mapping.check_mapping(place.index, found[place.index]["mappings"])


async def complete(client: "AsyncElasticsearch", place: Place, holds: Whole) -> None:
    """Everything was sent: make it visible, count it, and only then give the index its alias."""
    await client.indices.refresh(index=place.index)
    counted = (await client.count(index=place.index))["count"]
    if counted != holds.passages:
        raise StageFailed(
            f"Elasticsearch: index {place.index} is not what was sent",
            got=f"{counted} passages",
            allowed=f"{holds.passages} passages",
            next_step="run again; where there are too many, something else has written into it: delete it first",
        )
    report = asdict(replace(holds.report, malformed=[]))  # those name files of this machine
    meta = {"corpus": place.corpus, "passages": holds.passages, "report": report}
    await client.indices.put_mapping(index=place.index, meta=meta)
    await client.indices.put_alias(index=place.index, name=place.alias)


async def all_whole(client: "AsyncElasticsearch", places: Sequence[Place]) -> list[Whole] | None:
    """What every index holds; None while one is missing."""
    found = [await whole(client, place) for place in places]
    return None if None in found else [holds for holds in found if holds]


async def make_whole(
    client: "AsyncElasticsearch",
    access: Access,
    places: Sequence[Place],
    entries: Iterator[Entry],
    report: IngestReport,
    load: Load,
    progress: Progress,
) -> None:
    """Create, fill and complete the indexes that aren't whole yet. `report` fills while entries are read."""
    missing = [place for place in places if await whole(client, place) is None]
    if not missing:
        return
    for place in missing:
        if await client.indices.exists_alias(name=place.versions):
            progress.say(f"index: the one of {place.corpus} is of another version of dsrl; built anew beside it")
        await create(client, place, load.settings)
    with progress.task(*load.measure) as task:
        feed = Feed(entries, missing, lambda: show_progress(task, report))
        await _together(_send(client, access, feed, load) for _ in range(load.senders))
    for place in missing:
        await complete(client, place, Whole(feed.counts[place], report))


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at the same time; the first error stops the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Feed:
    """Passages for several senders, read in a thread and only as fast as they are sent."""

    def __init__(self, entries: Iterator[Entry], places: Collection[Place], show: Callable[[], None]) -> None:
        self.counts: Counter[Place] = Counter()
        self._show = show
        self._wanted = (entry for entry in entries if entry.place in places)
        self._lock = asyncio.Lock()

    async def actions(self) -> AsyncIterator[dict[str, Any]]:
        """What one sender is to send."""
        while True:
            async with self._lock:
                batch = await asyncio.to_thread(self._read)
            if not batch:
                return
            for entry in batch:
                yield _action(entry)

    def _read(self) -> list[Entry]:
        batch = list(islice(self._wanted, AT_ONCE))
        self.counts.update(entry.place for entry in batch)
        self._show()
        return batch


def _action(entry: Entry) -> dict[str, Any]:
    piece = entry.piece
    fields = {"source": piece.source, "offset": piece.offset, "number": entry.number, "text": piece.text}
    return {"_op_type": "create", "_index": entry.place.index, "_id": str(entry.number), **fields}


async def _send(client: "AsyncElasticsearch", access: Access, feed: Feed, load: Load) -> None:
    from elasticsearch.helpers import async_streaming_bulk

    results = async_streaming_bulk(
        client,
        feed.actions(),
        max_chunk_bytes=load.request_bytes,
        max_retries=access.retries,
        initial_backoff=FIRST_WAIT,
        max_backoff=LONGEST_WAIT,
        retry_on_status=(429, 503),
        raise_on_error=False,
        raise_on_exception=False,
    )
    async for stored, item in results:
        (outcome,) = item.values()
        if not stored and outcome["status"] != THERE:
            raise _lost(outcome, access)


def _lost(outcome: dict[str, Any], access: Access) -> UserError:
    """One passage that the server doesn't take, however often it is sent."""
    error = refused(outcome["status"], outcome, access)
    source = outcome.get("data", {}).get("source")
    return type(error)(f"{error}\n  passage: number {outcome['_id']}{f' of {source}' if source else ''}")
