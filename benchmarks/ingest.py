"""Cost of indexing a corpus: time, disk, memory, and the rate compared with tantivy alone.

    python benchmarks/passages.py 500000 p.jsonl.gz
    python benchmarks/ingest.py index  p.jsonl.gz index     # as dsrl: read, deduplicate, split, index
    python benchmarks/ingest.py memory p.jsonl.gz memory    # tantivy alone, with documents already in memory
    python benchmarks/ingest.py search p.jsonl.gz index     # open the first index and run 1000 queries

Each in a process of its own; prints one line of JSON. Private memory is what belongs to no file (Linux: anonymous);
pages of mapped files, of which the system keeps as many as it has room for, are apart.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from passages import queries

from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.corpus import find_corpus
from dsrl.stages.retrieve.index import ANALYZER, make_analyzer, make_document, make_schema
from dsrl.stages.retrieve.index_build import THREADS, WRITER_BYTES, build_index, open_index
from dsrl.stages.retrieve.ingest import Piece

NUM_QUERIES, LIMIT = 1000, 10


class PrivateMemory:
    """Peak private memory of this process, sampled twenty times per second."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, self.now())
            time.sleep(0.05)

    @staticmethod
    def now() -> int:
        """Bytes."""
        rows = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(row.split()[1]) for row in rows if row.startswith("Anonymous:"))


def index(file: str, root: Path) -> dict[str, Any]:
    """Index the corpus with dsrl."""
    shutil.rmtree(root, ignore_errors=True)
    made = build_index(root, [find_corpus(file)], Progress())
    return {"pieces": made.num_pieces, "duplicates": made.report.duplicates}


def memory(file: str, root: Path) -> dict[str, Any]:
    """Index with tantivy alone. Times exclude reading and garbage collection."""
    import tantivy

    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    started = time.monotonic()
    made = tantivy.Index(make_schema(), path=str(root))
    made.register_tokenizer(ANALYZER, make_analyzer())
    writer = made.writer(WRITER_BYTES, num_threads=THREADS)
    for number, row in enumerate(rows):
        writer.add_document(make_document(Piece(row["id"], 0, row["text"]), number))
    writer.commit()
    writer.wait_merging_threads()
    return {"pieces": len(rows), "seconds": time.monotonic() - started}


def search(file: str, root: Path) -> dict[str, Any]:
    """Open the existing index and run the queries one by one."""
    started = time.monotonic()
    searcher = open_index(root, [find_corpus(file)], Progress())
    opened = time.monotonic() - started
    took = []
    for query in queries(NUM_QUERIES):
        began = time.monotonic()
        searcher.search(query, LIMIT)
        took.append(1000 * (time.monotonic() - began))
    return {"open_s": opened, "p50_ms": statistics.median(took), "p95_ms": sorted(took)[int(0.95 * len(took))]}


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["index", "memory", "search"])
    parser.add_argument("file")
    parser.add_argument("root", type=Path)
    given = parser.parse_args()
    private, started = PrivateMemory(), time.monotonic()
    found = {"index": index, "memory": memory, "search": search}[given.part](given.file, given.root)
    seconds = found.setdefault("seconds", time.monotonic() - started)
    if "pieces" in found:
        found["pieces_per_second"] = found["pieces"] / seconds
    found["index_mb"] = sum(path.stat().st_size for path in given.root.rglob("*") if path.is_file()) / 1e6
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps({"part": given.part, **rounded, "private_mb": private.most // 10**6, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
