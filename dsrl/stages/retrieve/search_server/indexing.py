"""Fills indexes on the server. An index gets its alias when it is complete; only then is it searched.

Every passage has its number as id and is only ever created, never replaced. Requests that are sent twice, killed runs
and concurrent runs therefore all lead to the same index, without deleted documents, which would count in the scores.
"""

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.index_build import show_progress
from dsrl.stages.retrieve.ingest import IngestReport, Piece
from dsrl.stages.retrieve.search_server.client import Retry, SearchClient
from dsrl.stages.retrieve.search_server.errors import ServerError, explain, not_a_search_server
from dsrl.stages.retrieve.search_server.layout import IndexName, check_layout

OLDEST_ELASTICSEARCH = 7
CREATED, CONFLICT = 201, 409
PLACEMENT_TIMEOUT = "5s"
"""How long a new index may take to find a node, and an existing one to recover."""
SAMPLE_EVERY, MAX_SAMPLES = 1000, 100
"""Passages that are read back and compared before an index counts as complete."""


@dataclass(frozen=True, slots=True)
class NumberedPiece:
    """A passage on its way into an index."""

    name: IndexName
    number: int
    """Position among all passages; the document id."""
    piece: Piece

    def document(self) -> dict[str, Any]:
        piece = self.piece
        return {"source": piece.source, "offset": piece.offset, "number": self.number, "text": piece.text}


@dataclass(frozen=True)
class IndexStats:
    """Content of a complete index, as its `_meta` states it."""

    num_passages: int
    report: IngestReport
    """How its corpus and those before it were read."""
    num_shards: int = 1


@dataclass(frozen=True)
class ServerInfo:
    """What `GET /` says."""

    is_opensearch: bool
    version: str
    """Empty if the account may not see it."""

    def __str__(self) -> str:
        return f"{'OpenSearch' if self.is_opensearch else 'Elasticsearch'} {self.version or '(version not shown)'}"


async def check_server(client: SearchClient) -> ServerInfo:
    """Raise `UserError` within seconds unless a supported server answers and accepts the credentials."""
    address = client.access.addresses[0]
    try:
        info = await client.request("GET", "/")
    except ServerError as error:
        if error.status == 403 and error.type == "security_exception":  # it lacks the cluster privilege `monitor`
            return ServerInfo(False, "")
        if isinstance(error.body, str) and error.status not in (401, 403) and not error.is_outage:
            raise not_a_search_server(address, f"HTTP {error.status}: {error.body}") from error
        raise
    try:
        number, distribution = str(info["version"]["number"]), info["version"].get("distribution")
        major = int(number.partition(".")[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_a_search_server(address, json.dumps(info)) from error
    if distribution != "opensearch" and major < OLDEST_ELASTICSEARCH:
        raise UserError(
            f"search server: {address} is too old", got=number, allowed=f"Elasticsearch {OLDEST_ELASTICSEARCH} or later"
        )
    return ServerInfo(distribution == "opensearch", number)


async def check_health(client: SearchClient, index: str) -> None:
    """Raise `StageFailed` if an index of ours is red. Skipped where health is denied or not offered."""
    path = f"/_cluster/health/{index}?wait_for_status=yellow&timeout={PLACEMENT_TIMEOUT}"
    try:
        health = await client.request("GET", path)
    except ServerError as error:
        if error.status != 408:
            return  # a search that misses a shard fails anyway
        health = error.body
    if health.get("status") == "red":
        raise StageFailed(
            f"search server: index {index} is red: it has shards without a node",
            got=await _allocation_failure(client, index),
            next_step="start the missing nodes, or delete the index: it will be rebuilt",
        )


async def _allocation_failure(client: SearchClient, index: str) -> str:
    """The server's reason for not allocating the first shard of an index."""
    try:
        body = {"index": index, "shard": 0, "primary": True}
        explanation = await client.request("POST", "/_cluster/allocation/explain", body)
    except ServerError:
        return "GET _cluster/allocation/explain gives the reason"
    reasons = [explanation.get("allocate_explanation"), explanation.get("unassigned_info", {}).get("reason")]
    for node in explanation.get("node_allocation_decisions", [])[:1]:
        reasons += [decider.get("explanation") for decider in node.get("deciders", [])[:2]]
    return "; ".join(filter(None, reasons))


async def load_stats(client: SearchClient, name: IndexName) -> IndexStats | None:
    """Stats of a complete index; None if there is none. Raises `UserError` if it was changed or isn't ours."""
    try:
        found = await client.request("GET", f"/{name.alias}")
    except ServerError as error:
        if error.status == 404:
            return None
        raise
    ((index, description),) = found.items()
    check_layout(index, description)
    await check_health(client, index)
    meta = description["mappings"].get("_meta", {})
    count = (await client.request("GET", f"/{name.alias}/_count"))["count"]
    if meta.get("passages") != count or "report" not in meta:
        raise UserError(
            f"search server: index {index} was changed after it was built",
            got=f"{count} passages",
            allowed=f"{meta.get('passages')} passages",
            next_step="delete it, and run again: it will be rebuilt",
        )
    shards = int(description["settings"]["index"].get("number_of_shards", 1))
    return IndexStats(count, IngestReport.from_json(meta["report"]), shards)


async def load_all_stats(client: SearchClient, names: Sequence[IndexName]) -> list[IndexStats] | None:
    """Stats of every index; None if one is missing."""
    stats = [await load_stats(client, name) for name in names]
    return None if None in stats else [found for found in stats if found]


async def create_index(client: SearchClient, name: IndexName, body: dict[str, Any]) -> None:
    """Create an empty index, or accept one that another run has created. Raises `UserError` if it can't be used."""
    path = f"/{name.index}?wait_for_active_shards=1&timeout={PLACEMENT_TIMEOUT}"
    try:
        created = await client.request("PUT", path, body)
    except ServerError as error:
        if error.type != "resource_already_exists_exception":
            raise
        created = None
    try:
        check_layout(name.index, (await client.request("GET", f"/{name.index}"))[name.index])
        if not created:
            await check_health(client, name.index)
        elif not created.get("shards_acknowledged", True):
            raise StageFailed(
                f"search server: no node can hold the new index {name.index}",
                got=await _allocation_failure(client, name.index),
                next_step="change the allocation rules or index template that prevent it, or free disk space",
            )
    except UserError:
        if created:
            await client.request("DELETE", f"/{name.index}")
        raise


async def build_indexes(
    client: SearchClient,
    names: Sequence[IndexName],
    pieces: Iterator[NumberedPiece],
    report: IngestReport,
    settings: dict[str, Any],
    limits: "BulkLimits",
    unit: tuple[str, int | None],
    progress: Progress,
) -> None:
    """Create, fill and complete the indexes that aren't complete. `report` is updated while pieces are read.

    `settings` is a `creation_request`, `unit` what `index_build.progress_unit` returns.
    """
    missing = [name for name in names if await load_stats(client, name) is None]
    if not missing:
        return
    for name in missing:
        if await _has_other_version(client, name):
            progress.say(f"index: the server has {name.corpus} from another version of dsrl; building a new index")
        await create_index(client, name, settings)
    with progress.task(*unit) as task:
        feed = PieceFeed(pieces, missing, limits.request_bytes, lambda: show_progress(task, report))
        try:
            async with asyncio.TaskGroup() as senders:
                for _ in range(limits.concurrency):
                    senders.create_task(_send_all(client, feed))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
    for name in missing:
        await complete_index(client, name, IndexStats(feed.counts[name], report), feed.samples[name])


async def _has_other_version(client: SearchClient, name: IndexName) -> bool:
    try:
        return bool(await client.request("GET", f"/_alias/{name.any_version}"))
    except ServerError as error:
        if error.status in (403, 404):
            return False
        raise


async def complete_index(
    client: SearchClient, name: IndexName, stats: IndexStats, samples: Sequence[NumberedPiece]
) -> None:
    """Make all passages visible, verify their number and a sample of their content, then set the alias."""
    await client.request("POST", f"/{name.index}/_refresh")
    count = (await client.request("GET", f"/{name.index}/_count"))["count"]
    if count != stats.num_passages:
        raise StageFailed(
            f"search server: index {name.index} does not contain what was sent",
            got=f"{count} passages",
            allowed=f"{stats.num_passages} passages",
            next_step="run again; if there are too many, something else writes into the index: delete it first",
        )
    if samples:
        ids = {"ids": [str(sample.number) for sample in samples]}
        found = (await client.request("POST", f"/{name.index}/_mget", ids))["docs"]
        for sample, document in zip(samples, found, strict=True):
            if document.get("_source") != sample.document():
                raise UserError(
                    f"search server: index {name.index} stores passages that differ from what was sent",
                    got=json.dumps(document.get("_source"))[:200],
                    allowed=json.dumps(sample.document())[:200],
                    next_step="remove the pipeline or template that changes them, and delete the index",
                )
    report = asdict(replace(stats.report, malformed=[]))  # their files are on this machine only
    meta = {"corpus": name.corpus, "passages": stats.num_passages, "report": report}
    await client.request("PUT", f"/{name.index}/_mapping", {"_meta": meta})
    await client.request("PUT", f"/{name.index}/_alias/{name.alias}")


@dataclass(frozen=True)
class BulkLimits:
    """How fast indexes are filled."""

    concurrency: int
    """Bulk requests in flight."""
    request_bytes: int
    """Maximum length of one."""


@dataclass(frozen=True)
class BulkRequest:
    """Passages for one index, serialized: an action line and a document line for each."""

    name: IndexName
    entries: tuple[bytes, ...]


class PieceFeed:
    """Serializes passages for several senders, in a thread and only as fast as they are sent."""

    def __init__(
        self, pieces: Iterable[NumberedPiece], names: Collection[IndexName], max_bytes: int, show: Callable[[], None]
    ) -> None:
        self.counts: Counter[IndexName] = Counter()
        self.samples: defaultdict[IndexName, list[NumberedPiece]] = defaultdict(list)
        self._show = show
        self._lock = asyncio.Lock()
        wanted = (piece for piece in pieces if piece.name in names)
        self._requests = self._serialize(wanted, max_bytes)

    async def next(self) -> BulkRequest | None:
        async with self._lock:
            return await asyncio.to_thread(next, self._requests, None)

    def _serialize(self, pieces: Iterator[NumberedPiece], max_bytes: int) -> Iterator[BulkRequest]:
        for name, group in itertools.groupby(pieces, key=lambda piece: piece.name):
            entries: list[bytes] = []
            size = 0
            for piece in group:
                document = json.dumps(piece.document(), ensure_ascii=False, separators=(",", ":"))
                entry = f'{{"create":{{"_id":"{piece.number}"}}}}\n{document}\n'.encode()
                if entries and size + len(entry) > max_bytes:
                    yield BulkRequest(name, tuple(entries))
                    self._show()
                    entries, size = [], 0
                if self.counts[name] % SAMPLE_EVERY == 0 and len(self.samples[name]) < MAX_SAMPLES:
                    self.samples[name].append(piece)
                self.counts[name] += 1
                entries.append(entry)
                size += len(entry)
            yield BulkRequest(name, tuple(entries))
            self._show()


async def _send_all(client: SearchClient, feed: PieceFeed) -> None:
    while request := await feed.next():
        await send_bulk(client, request)


async def send_bulk(client: SearchClient, bulk: BulkRequest) -> None:
    """Send passages until every one is stored. Requests that are too large are halved.

    Raises `UserError` naming the first passage that is rejected for good.
    """
    path = f"/{bulk.name.index}/_bulk"
    entries, retry = bulk.entries, Retry(client.access, client.patience)
    while entries:
        try:
            reply = await client.request("POST", path, b"".join(entries))
        except ServerError as error:
            if error.status != 413 or len(entries) == 1:
                raise _with_passage(error, client, entries[0]) from error
            middle = len(entries) // 2
            await send_bulk(client, replace(bulk, entries=entries[:middle]))
            entries = entries[middle:]
            continue
        if not reply["errors"]:
            return
        rejected: list[tuple[bytes, ServerError]] = []
        for entry, item in zip(entries, reply["items"], strict=True):
            (outcome,) = item.values()
            status = outcome["status"]
            if status >= 300 and status != CONFLICT:  # a conflict: the passage was stored before
                rejected.append((entry, ServerError(status, outcome, "POST", path)))
        for entry, failure in rejected:
            if failure.status != 429 and not failure.is_outage:
                raise _with_passage(failure, client, entry)
        if rejected:
            await retry.wait(rejected[0][1])
        entries = tuple(entry for entry, _ in rejected)


def _with_passage(error: ServerError, client: SearchClient, entry: bytes) -> UserError:
    """The explained error, with the passage that was rejected or the first one of the request."""
    explained = explain(error, client.access)
    document = json.loads(entry.partition(b"\n")[2])
    return type(explained)(f"{explained}\n  passage: number {document['number']} of {document['source'][:200]}")
