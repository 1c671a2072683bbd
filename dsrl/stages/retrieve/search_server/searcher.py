"""Searches the indexes on a server, many queries in one request."""

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from dsrl.stages.retrieve.search_server.client import Retry, SearchClient
from dsrl.stages.retrieve.search_server.errors import ServerError
from dsrl.stages.retrieve.search_server.layout import IndexName
from dsrl.stages.retrieve.searcher import SearchHit

MAX_WORDS = 1000
"""Words of a query that are searched; servers refuse more than 1,024 clauses."""
WORD = re.compile(r"[A-Za-z0-9]{1,255}|[^\sA-Za-z0-9]")
"""Matches at least as often as the server's analyzer finds words: letters of other scripts count one by one."""
PAGE_SIZE = 2000
"""Hits of one query in one reply; longer lists are fetched page by page."""
HITS_PER_REQUEST = 10_000
FILTER = "filter_path=responses.status,responses.error,responses.timed_out,responses._shards.failed,responses.hits.hits"

Hits = list[dict[str, Any]]


class ServerSearcher:
    """Searches the indexes of some corpora as one, with words weighted over all of them; a `Searcher`."""

    def __init__(
        self,
        client: SearchClient,
        names: Sequence[IndexName],
        num_documents: int,
        distributed: bool,
        score_scale: float,
    ) -> None:
        """`distributed`: whether there is more than one shard, so that word statistics must be summed over them.
        `score_scale`: factor that makes the server's scores those of the other engines."""
        self._client, self._scale = client, score_scale
        self._path = f"/{','.join(name.alias for name in names)}/_msearch?{FILTER}"
        if distributed:
            self._path += "&search_type=dfs_query_then_fetch"
        self.num_documents = num_documents

    def search(self, query: str, limit: int) -> list[SearchHit]:
        return self.search_many([query], limit)[0]

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[SearchHit]]:
        found = self._client.run(self._search_all([prepare_query(query) for query in queries], limit))
        return [[self._hit(row) for row in hits] for hits in found]

    def close(self) -> None:
        self._client.close()

    def _hit(self, row: dict[str, Any]) -> SearchHit:
        fields, score = row["_source"], float(row["_score"]) * self._scale
        return SearchHit(source=fields["source"], text=fields["text"], score=score, offset=fields["offset"])

    async def _search_all(self, queries: Sequence[str], limit: int) -> list[Hits]:
        """The first `limit` hits of each query by score, ties by passage number.

        Servers break ties by the order in which passages happened to arrive, and asking them for another order turns
        off their fastest search. So one hit more than needed is fetched by score alone and sorted here, and only
        queries with a tie across the limit are repeated, in the server's order by score and number.
        """
        found: list[Hits] = [[] for _ in queries]
        nonempty = [place for place, query in enumerate(queries) if query and limit > 0]
        to_sort = nonempty
        if limit < PAGE_SIZE:
            pages = await self._search([search_body(queries[place], limit + 1) for place in nonempty], limit + 1)
            to_sort = []
            for place, page in zip(nonempty, pages, strict=True):
                if len(page) > limit and page[limit]["_score"] == page[limit - 1]["_score"]:
                    to_sort.append(place)
                else:
                    page.sort(key=lambda row: (-row["_score"], row["_source"]["number"]))
                    found[place] = page[:limit]
        while to_sort:
            size = min(PAGE_SIZE, limit - len(found[to_sort[0]]))
            bodies = [sorted_search_body(queries[place], size, found[place]) for place in to_sort]
            pages = await self._search(bodies, size)
            for place, page in zip(to_sort, pages, strict=True):
                found[place] += page
            full = [place for place, page in zip(to_sort, pages, strict=True) if len(page) == size]
            to_sort = [place for place in full if len(found[place]) < limit]
        return found

    async def _search(self, bodies: Sequence[dict[str, Any]], size: int) -> list[Hits]:
        """Send the searches in requests of some each, one after the other: the server runs those of one in parallel."""
        lines = [f"{{}}\n{json.dumps(body)}\n".encode() for body in bodies]
        pages: list[Hits] = []
        rest = iter(lines)
        while batch := list(islice(rest, max(1, HITS_PER_REQUEST // size))):
            pages += await self._search_batch(batch)
        return pages

    async def _search_batch(self, lines: list[bytes]) -> list[Hits]:
        """One request, repeated for those of its searches that the server rejected or didn't complete."""
        found: dict[int, Hits] = {}
        retry = Retry(self._client.access, self._client.patience)
        while True:
            missing = [place for place in range(len(lines)) if place not in found]
            reply = await self._client.request("POST", self._path, b"".join(lines[place] for place in missing))
            failure = None
            for place, response in zip(missing, reply["responses"], strict=True):
                if "error" in response:
                    failure = ServerError(int(response.get("status", 500)), response, "POST", self._path)
                elif response["timed_out"] or response["_shards"]["failed"]:
                    failure = ServerError(503, {"error": "a shard did not answer"}, "POST", self._path)
                else:
                    found[place] = response.get("hits", {}).get("hits", [])
            if failure is None:
                return [found[place] for place in range(len(lines))]
            await retry.wait(failure)


def search_body(query: str, size: int) -> dict[str, Any]:
    """Search for any of the query's words, ordered by score. The query is never parsed."""
    match = {"match": {"text": {"query": query, "operator": "or"}}}
    return {"query": match, "size": size, "track_total_hits": False}


def sorted_search_body(query: str, size: int, before: Hits) -> dict[str, Any]:
    """Search ordered by score and number, for the hits that follow `before`."""
    body = {**search_body(query, size), "sort": [{"_score": "desc"}, {"number": "asc"}]}
    return {**body, "search_after": before[-1]["sort"]} if before else body


def prepare_query(query: str) -> str:
    """The first `MAX_WORDS` words, without halves of surrogate pairs, which no server accepts."""
    text = query.encode(errors="replace").decode()
    beyond = next(islice(WORD.finditer(text), MAX_WORDS, None), None)
    return (text[: beyond.start()] if beyond else text).strip()
