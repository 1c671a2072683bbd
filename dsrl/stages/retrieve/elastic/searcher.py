"""Queries, many in one request; equal scores go by the number of the passage."""

import asyncio
import re
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from dsrl.stages.retrieve.elastic.access import Access
from dsrl.stages.retrieve.elastic.connection import BUSY, FIRST_WAIT, LONGEST_WAIT, Connection
from dsrl.stages.retrieve.elastic.failures import refused
from dsrl.stages.retrieve.elastic.mapping import Place
from dsrl.stages.retrieve.searcher import SearchHit

if TYPE_CHECKING:
    from elasticsearch import AsyncElasticsearch

MOST_WORDS = 1000
"""Of a query; servers refuse more than 1,024 clauses."""
WORD = re.compile(r"[A-Za-z0-9]{1,255}|[^\sA-Za-z0-9]")
"""At least as many as the server's analyzer finds in any text: letters of other scripts count one by one."""
LONGEST_PAGE = 2000
"""Hits of one query in one reply; longer lists are fetched page by page."""
HITS_PER_REQUEST = 10_000

Body = dict[str, Any]
Found = list[dict[str, Any]]


class ElasticSearcher:
    """Searches the indexes of some corpora as one: words are weighed over all of them."""

    def __init__(self, connection: Connection, access: Access, places: Sequence[Place], num_documents: int) -> None:
        self._connection, self._access = connection, access
        self._index = [place.alias for place in places]
        self.num_documents = num_documents

    def search(self, query: str, limit: int) -> list[SearchHit]:
        """The best hits for any of the query's words, best first. The query isn't parsed, so it may hold anything."""
        return self.search_many([query], limit)[0]

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[SearchHit]]:
        """The hits of each query, in its place."""
        found = self._connection.run(self._pages([bounded(query) for query in queries], limit))
        return [[_hit(row) for row in rows] for rows in found]

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._connection.close()

    async def _pages(self, queries: Sequence[str], limit: int) -> list[Found]:
        found: list[Found] = [[] for _ in queries]
        waiting = [number for number, query in enumerate(queries) if query and limit > 0]
        while waiting:
            size = min(LONGEST_PAGE, limit - len(found[waiting[0]]))
            bodies = [body(queries[number], size, found[number]) for number in waiting]
            pages = await self._search_all(bodies, max(1, HITS_PER_REQUEST // size))
            for number, page in zip(waiting, pages, strict=True):
                found[number] += page
            full = (number for number, page in zip(waiting, pages, strict=True) if len(page) == size)
            waiting = [number for number in full if len(found[number]) < limit]
        return found

    async def _search_all(self, bodies: Sequence[Body], together: int) -> list[Found]:
        """In requests of some searches each, one after the other: the server works on those of one at the same time."""
        pages: list[Found] = []
        rest = iter(bodies)
        while some := list(islice(rest, together)):
            pages += await self._search_some(some)
        return pages

    async def _search_some(self, bodies: list[Body]) -> list[Found]:
        """One request, and further ones for those of its searches that the server had no time for."""
        found: dict[int, Found] = {}
        for attempt in range(self._access.retries + 1):
            missing = [number for number in range(len(bodies)) if number not in found]
            replies = await self._ask([bodies[number] for number in missing])
            for number, reply in zip(missing, replies, strict=True):
                if (failed := _failed(reply)) is None:
                    found[number] = reply["hits"]["hits"]
                elif failed not in BUSY or attempt == self._access.retries:
                    raise refused(failed, reply, self._access)
            if len(found) == len(bodies):
                break
            await asyncio.sleep(min(FIRST_WAIT * 2**attempt, LONGEST_WAIT))
        return [found[number] for number in range(len(bodies))]

    async def _ask(self, bodies: list[Body]) -> Found:
        client: AsyncElasticsearch = self._connection.client
        searches: list[Body] = [part for body in bodies for part in ({}, body)]
        reply = await client.msearch(searches=searches, index=self._index, search_type="dfs_query_then_fetch")
        replies: Found = reply["responses"]
        return replies


def body(query: str, size: int, before: Found) -> Body:
    """The search for the hits after those that were found before."""
    search: Body = {
        "query": {"match": {"text": {"query": query, "operator": "or"}}},
        "size": size,
        "sort": [{"_score": "desc"}, {"number": "asc"}],
        "track_total_hits": False,
    }
    return {**search, "search_after": before[-1]["sort"]} if before else search


def bounded(query: str) -> str:
    """The text up to its thousandth word."""
    beyond = next(islice(WORD.finditer(query), MOST_WORDS, None), None)
    return (query[: beyond.start()] if beyond else query).strip()


def _failed(reply: Body) -> int | None:
    """Status of a search that didn't look at everything; None: it did."""
    if "error" in reply:
        return int(reply.get("status", 500))
    return 503 if reply["timed_out"] or reply["_shards"]["failed"] else None


def _hit(row: dict[str, Any]) -> SearchHit:
    fields = row["_source"]
    return SearchHit(source=fields["source"], text=fields["text"], score=float(row["_score"]), offset=fields["offset"])
