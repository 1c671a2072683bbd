"""An index of corpora on disk, searched by BM25 (k1 = 1.2, b = 0.75) in this process: memory-mapped, no server."""

import json
import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.digest import digest
from dsrl.part import record
from dsrl.progress import Progress
from dsrl.retrieve.corpus import Corpus
from dsrl.store import write_json

if TYPE_CHECKING:
    from tantivy import DocAddress, Query, Schema, TextAnalyzer

ANALYZER = "english"
LONGEST_TOKEN = 40
# The stop words of Lucene, and so of Elasticsearch's `english`.
STOP_WORDS = (  # noqa: SIM905
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
).split()
VERSION = 1
"""Raised when the analyzer or the fields change: indexes of another version are built anew."""
MEMORY = 128 << 20
"""Bytes that building an index may hold before it writes to disk."""
SHOWN_EVERY = 1000
COMPLETE = "complete.json"
"""Written last: number of documents, and the size of every file."""


@record
class Hit:
    """A document that a query found."""

    source: str
    """`<corpus>/<id of the document>`."""
    text: str
    score: float


class TantivySearcher:
    """Searches one index. Equal scores are settled by the order of the documents in their corpora."""

    def __init__(self, folder: Path) -> None:
        import tantivy

        self._schema, self._analyzer = schema(), analyzer()
        index = tantivy.Index.open(str(folder))
        index.register_tokenizer(ANALYZER, self._analyzer)
        self._searcher = index.searcher()
        self.num_documents: int = self._searcher.num_docs

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best hits for any of the query's words, best first. The query isn't parsed, so it may hold anything."""
        terms = self._analyzer.analyze(query)
        if not terms or not self.num_documents:
            return []
        ranked = self._ranked(_any_of(self._schema, terms), limit)
        return [self._hit(score, address) for score, address in ranked]

    def _ranked(self, query: "Query", limit: int) -> list[tuple[float, "DocAddress"]]:
        """The first `limit` by score, then by number; where a tie crosses the limit, all of it is looked at."""
        size = limit + 1
        hits = self._searcher.search(query, limit=size, count=False).hits
        while len(hits) == size and hits[-1][0] == hits[limit - 1][0]:
            size *= 2
            hits = self._searcher.search(query, limit=size, count=False).hits
        numbers = self._searcher.fast_field_values("number", [address for _, address in hits])
        order = sorted(range(len(hits)), key=lambda place: (-hits[place][0], numbers[place]))
        return [hits[place] for place in order[:limit]]

    def _hit(self, score: float, address: "DocAddress") -> Hit:
        fields = self._searcher.doc(address).to_dict()
        return Hit(source=fields["source"][0], text=fields["text"][0], score=float(score))


def open_index(root: Path, corpora: Sequence[Corpus], progress: Progress) -> TantivySearcher:
    """The index of these corpora under `root`, built on first use by one process while others wait."""
    from filelock import FileLock

    folder = root / digest([VERSION, _library(), [corpus.identity() for corpus in corpora]])
    root.mkdir(parents=True, exist_ok=True)
    if not _is_whole(folder):
        with FileLock(root / f".{folder.name}.lock"):
            if not _is_whole(folder):
                _build(folder, corpora, progress)
    return TantivySearcher(folder)


def schema() -> "Schema":
    """What the index knows of a document."""
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("source", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("text", stored=True, tokenizer_name=ANALYZER, index_option="freq")
    builder.add_integer_field("number", fast=True)
    return builder.build()


def analyzer() -> "TextAnalyzer":
    """Words, lower case, without stop words, stemmed: 97 % of the top ten are those of Elasticsearch's `english`."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(LONGEST_TOKEN))
    builder = builder.filter(Filter.lowercase()).filter(Filter.custom_stopword(STOP_WORDS))
    return builder.filter(Filter.stemmer("english")).build()


def _any_of(fields: "Schema", terms: Iterable[str]) -> "Query":
    from tantivy import Occur, Query

    return Query.boolean_query([(Occur.Should, Query.term_query(fields, "text", term, "freq")) for term in terms])


def _library() -> str:
    """Release of the search library without its patch level: another one may write other files."""
    return version("tantivy").rpartition(".")[0]


def _is_whole(folder: Path) -> bool:
    """Whether all files that the build left are there in full length."""
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _build(folder: Path, corpora: Sequence[Corpus], progress: Progress) -> None:
    """Fill a folder beside the place and move it in whole."""
    making = folder.with_name(f".making-{folder.name}")
    for remains in (making, folder):
        shutil.rmtree(remains, ignore_errors=True)
    making.mkdir()
    documents = _fill(making, corpora, progress)
    files = {path.name: path.stat().st_size for path in making.iterdir()}
    write_json(making / COMPLETE, {"documents": documents, "files": files})
    making.rename(folder)


def _fill(folder: Path, corpora: Sequence[Corpus], progress: Progress) -> int:
    """Documents written. One thread, so that memory stays bounded and the other cores free."""
    import tantivy

    index = tantivy.Index(schema(), path=str(folder))
    index.register_tokenizer(ANALYZER, analyzer())
    writer = index.writer(MEMORY, num_threads=1)
    number = 0
    with progress.task("index", sum(corpus.rows or 0 for corpus in corpora) or None) as task:
        for corpus in corpora:
            for document in corpus.documents():
                source = f"{corpus.name}/{document.id}"
                writer.add_document(tantivy.Document(source=source, text=document.text, number=number))
                number += 1
                if number % SHOWN_EVERY == 0:
                    task.set(number)
    writer.commit()
    writer.wait_merging_threads()
    return number
