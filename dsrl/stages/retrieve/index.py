"""The embedded index: BM25 (k1 = 1.2, b = 0.75) by tantivy over memory-mapped files, without a server."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.pipeline.store import write_json
from dsrl.stages.retrieve.ingest.records import Piece
from dsrl.stages.retrieve.searcher import SearchHit

if TYPE_CHECKING:
    from tantivy import DocAddress, Document, Index, Query, Schema, TextAnalyzer

ANALYZER = "english"
MAX_TOKEN_CHARS = 40
NUMBER_JOINER = "\ua78f"
"""Replaces the point and comma within numbers. It is a letter, so the tokenizer doesn't split there."""
WITHIN_NUMBER = re.compile(r"[.,](?<=\d.)(?=\d)")
POSSESSIVE = re.compile(r"['\u2019]s\b")
SINGLE_CHARACTER_WORD = re.compile(
    "[\u3005-\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Characters of scripts without spaces; each is indexed as a word."""
# Lucene's English stop words, which the analyzer `english` of Elasticsearch and OpenSearch removes as well.
STOP_WORDS = (  # noqa: SIM905
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
).split()
MAX_TERMS = 1000
"""Terms of a query that are searched; further ones are ignored."""
BLOCK_BYTES = 4096
"""Size of the blocks in which texts are compressed. With tantivy's default of 16 KB, the index is 7 % smaller and
reading a passage takes twice as long."""


class TantivySearcher:
    """Searches one index; a `Searcher`."""

    def __init__(self, folder: Path) -> None:
        import tantivy

        self._schema, self._analyzer = make_schema(), make_analyzer()
        index = tantivy.Index.open(str(folder))
        index.register_tokenizer(ANALYZER, self._analyzer)
        self._searcher = index.searcher()
        self.num_documents: int = self._searcher.num_docs

    def search(self, query: str, limit: int) -> list[SearchHit]:
        from tantivy import Occur, Query

        terms = self._analyzer.analyze(normalize(query))[:MAX_TERMS]
        if not terms or not self.num_documents or limit < 1:
            return []
        clauses = [(Occur.Should, Query.term_query(self._schema, "words", term, "freq")) for term in terms]
        hits = []
        for score, address in self._rank(Query.boolean_query(clauses), limit):
            field = self._searcher.doc(address).get_first
            hits.append(
                SearchHit(source=field("source"), text=field("text").decode(), score=score, offset=field("offset"))
            )
        return hits

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[SearchHit]]:
        return [self.search(query, limit) for query in queries]

    def close(self) -> None:
        del self._searcher

    def _rank(self, query: "Query", limit: int) -> list[tuple[float, "DocAddress"]]:
        """The first `limit` hits by score, ties by piece number.

        tantivy breaks ties by segment, so a tie that crosses the limit must be fetched whole before it is sorted.
        """
        size = limit + 1
        hits = self._searcher.search(query, limit=size, count=False).hits
        while len(hits) == size and hits[-1][0] == hits[limit - 1][0]:
            size *= 2
            hits = self._searcher.search(query, limit=size, count=False).hits
        numbers = self._searcher.fast_field_values("number", [address for _, address in hits])
        order = sorted(range(len(hits)), key=lambda place: (-hits[place][0], numbers[place]))
        return [hits[place] for place in order[:limit]]


def create_index(folder: Path) -> "Index":
    """An empty index in an empty folder."""
    import tantivy

    tantivy.Index(make_schema(), path=str(folder))
    meta = folder / "meta.json"
    values = json.loads(meta.read_text(encoding="utf-8"))
    values["index_settings"]["docstore_blocksize"] = BLOCK_BYTES  # tantivy's Python API has no argument for it
    write_json(meta, values)
    return tantivy.Index.open(str(folder))


def make_schema() -> "Schema":
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("source", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field("text", stored=True)
    builder.add_text_field("words", tokenizer_name=ANALYZER, index_option="freq")
    builder.add_integer_field("offset", stored=True)
    builder.add_integer_field("number", fast=True)
    return builder.build()


def make_document(piece: Piece, number: int) -> "Document":
    """A piece as tantivy indexes it. `number` is its position among all pieces."""
    import tantivy

    text, words = piece.text.encode(), normalize(piece.text)
    return tantivy.Document(source=piece.source, text=text, words=words, offset=piece.offset, number=number)


def normalize(text: str) -> str:
    """Prepare a text for tantivy's simple tokenizer, which splits at everything but letters and digits.

    Removes possessive 's, joins numbers, and puts spaces around Chinese characters; the tokens are then nearly those
    of Elasticsearch (Unicode word boundaries, UAX #29).
    """
    spaced = text if text.isascii() else SINGLE_CHARACTER_WORD.sub(r" \g<0> ", text)
    if "'" in spaced or "\u2019" in spaced:  # ten times faster than the regular expression
        spaced = POSSESSIVE.sub("", spaced)
    return WITHIN_NUMBER.sub(NUMBER_JOINER, spaced)


def make_analyzer() -> "TextAnalyzer":
    """Analyzer for normalized text: lower case, no stop words, Porter 2 stemmer. 98 % of the top ten are those of
    Elasticsearch's `english`, which uses the first Porter stemmer."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(MAX_TOKEN_CHARS))
    builder = builder.filter(Filter.lowercase()).filter(Filter.custom_stopword(STOP_WORDS))
    return builder.filter(Filter.stemmer("english")).build()
