"""Measure one search engine in its own process, for `retrieval.py`. Prints JSON.

    python benchmarks/engines.py ENGINE build|ask PASSAGES FOLDER [--queries FILE --most N --url URL]

The standard library and the engine are all it needs, so that each can have an environment of its own.
"""

import argparse
import gzip
import json
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

TOP, DOMAIN = 50, 500
"""Hits per query; passages per domain."""
DOMAINS, WORDS = 20, 7
"""Queries with this many words count as domains: nearly all of them find enough passages."""
OFTEN = 0.2
"""Seconds between memory samples."""
Found = list[tuple[str, float]]


class Embedded:
    """dsrl's index: tantivy on disk."""

    def __init__(self, given: argparse.Namespace) -> None:
        from dsrl.stages.retrieve import Embedded as Retriever

        self.folder, self.retriever = given.folder / "embedded", Retriever(corpora=(str(given.passages),))

    def build(self) -> None:
        self.retriever.index(self.folder, quiet())

    def open(self) -> None:
        self.searcher = self.retriever.open(self.folder, quiet())

    def search(self, query: str, limit: int) -> Found:
        return [(hit.source.rpartition("/")[2], hit.score) for hit in self.searcher.search(query, limit)]

    def search_many(self, queries: Sequence[str], limit: int) -> list[Found]:
        many = self.searcher.search_many(queries, limit)
        return [[(hit.source.rpartition("/")[2], hit.score) for hit in hits] for hits in many]

    def size(self) -> int:
        return weight(self.folder)


class Elasticsearch(Embedded):
    """An Elasticsearch server. Its index is deleted after the queries."""

    def __init__(self, given: argparse.Namespace) -> None:
        from dsrl.stages.retrieve import SearchServer as Retriever

        self.folder = given.folder / "elasticsearch"
        self.retriever = Retriever(corpora=(str(given.passages),), url=given.url, prefix="dsrl-benchmark")

    def size(self) -> int:
        from dsrl.stages.retrieve.search_server.client import SearchClient

        with SearchClient(self.retriever) as client:
            stats = client.call("GET", "/dsrl-benchmark-*/_stats")
        return int(stats["_all"]["primaries"]["store"]["size_in_bytes"])


class Bm25s:
    """bm25s with numba and Lucene's stemmer."""

    def __init__(self, given: argparse.Namespace) -> None:
        import Stemmer

        self.passages, self.folder = given.passages, given.folder / "bm25s"
        self.stemmer = Stemmer.Stemmer("english")

    def words(self, texts: Sequence[str]) -> Any:
        import bm25s

        return bm25s.tokenize(texts, stopwords="en", stemmer=self.stemmer, show_progress=False)

    def build(self) -> None:
        import bm25s

        rows = list(read(self.passages))
        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba")
        index.index(self.words([row["text"] for row in rows]), show_progress=False)
        index.save(str(self.folder), corpus=rows)

    def open(self) -> None:
        import bm25s

        self.index = bm25s.BM25.load(str(self.folder), load_corpus=True, mmap=True)

    def search(self, query: str, limit: int) -> Found:
        return self.search_many([query], limit)[0]

    def search_many(self, queries: Sequence[str], limit: int) -> list[Found]:
        rows, scores = self.index.retrieve(self.words(queries), k=limit, show_progress=False, n_threads=2)
        pairs = (zip(some, marks, strict=True) for some, marks in zip(rows, scores, strict=True))
        return [[(row["id"], float(score)) for row, score in pair if score > 0] for pair in pairs]

    def size(self) -> int:
        return weight(self.folder)


class RankBm25:
    """rank_bm25 as in the authors' code: lower case, split at spaces, rebuilt in every run."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.passages = given.passages

    def build(self) -> None:
        from rank_bm25 import BM25Okapi

        self.rows = list(read(self.passages))
        self.index = BM25Okapi([row["text"].lower().split() for row in self.rows])

    open = build

    def search(self, query: str, limit: int) -> Found:
        scores = self.index.get_scores(query.lower().split())
        best = scores.argsort()[::-1][:limit]
        return [(self.rows[place]["id"], float(scores[place])) for place in best if scores[place] > 0]

    def search_many(self, queries: Sequence[str], limit: int) -> list[Found]:
        return [self.search(query, limit) for query in queries]

    def size(self) -> int:
        return 0


class Memory(Embedded):
    """tantivy alone with passages already in memory: the upper bound of indexing speed."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.folder, self.rows = given.folder / "memory", list(read(given.passages))
        self.folder.mkdir(parents=True, exist_ok=True)

    def build(self) -> None:
        from dsrl.stages.retrieve.index import ANALYZER, create_index, make_analyzer, make_document
        from dsrl.stages.retrieve.index_build import THREADS, WRITER_BYTES
        from dsrl.stages.retrieve.ingest import Piece

        index = create_index(self.folder)
        index.register_tokenizer(ANALYZER, make_analyzer())
        writer = index.writer(WRITER_BYTES, num_threads=THREADS)
        for number, row in enumerate(self.rows):
            writer.add_document(make_document(Piece(row["id"], 0, row["text"]), number))
        writer.commit()
        writer.wait_merging_threads()


ENGINES: dict[str, Any] = {
    "embedded": Embedded, "elasticsearch": Elasticsearch, "bm25s": Bm25s, "rank_bm25": RankBm25, "memory": Memory,
}  # fmt: skip


def quiet() -> Any:
    import io

    from dsrl.pipeline.progress.progress import Progress

    return Progress(io.StringIO())


def read(path: Path) -> Iterator[dict[str, str]]:
    with cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        yield from map(json.loads, file)


def weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Watch(threading.Thread):
    """Peak anonymous memory of this process, without mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(OFTEN):
            self.most = max(self.most, anonymous())


def anonymous() -> float:
    """Megabytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Anonymous:"))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def build(engine: Any) -> dict[str, Any]:
    seconds, _ = timed(engine.build)
    return {"build_s": seconds, "index_bytes": engine.size()}


def ask(engine: Any, queries: Sequence[str], hits: Path) -> dict[str, Any]:
    """Open the index and time single queries, all queries together, and the passages of some domains."""
    processor = time.process_time()
    reopen, _ = timed(engine.open)
    reopen_cpu = time.process_time() - processor
    first, _ = timed(lambda: engine.search(queries[0], TOP))
    single, found = zip(*(timed(lambda query=query: engine.search(query, TOP)) for query in queries), strict=True)
    batch, _ = timed(lambda: engine.search_many(queries, TOP))
    long = [query for query in queries[:DOMAINS] if len(query.split()) >= WORDS]
    domains = [timed(lambda query=query: engine.search(query, DOMAIN))[0] for query in long]
    hits.write_text(json.dumps(dict(zip(queries, found, strict=True))))
    cuts = statistics.quantiles(single, n=20, method="inclusive")
    return {
        "reopen_s": reopen, "reopen_cpu_s": reopen_cpu, "first_ms": 1000 * first,
        "p50_ms": 1000 * cuts[9], "p95_ms": 1000 * cuts[18],
        "queries": len(queries), "batch_per_s": len(queries) / batch, "domain_s": statistics.median(domains),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("step", choices=["build", "ask"])
    parser.add_argument("passages", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    engine = ENGINES[given.engine](given)
    watch = Watch()
    watch.start()
    if given.step == "build":
        told = build(engine)
    else:
        queries = given.queries.read_text(encoding="utf-8").splitlines()[: given.most]
        told = ask(engine, queries, given.folder / f"hits-{given.engine}.json")
    watch.over.set()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    private = max(watch.most, anonymous())
    print(json.dumps({**told, "cpu_s": time.process_time(), "peak_rss_mb": peak, "private_mb": private}), flush=True)


if __name__ == "__main__":
    main()
