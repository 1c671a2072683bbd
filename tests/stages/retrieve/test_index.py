"""Searches real indexes on disk: hits, order, scores and tokens."""

import hashlib
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.core.errors import UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.corpus import Corpus, find_corpus
from dsrl.stages.retrieve.index import BLOCK_BYTES, NUMBER_JOINER, TantivySearcher, make_analyzer, normalize
from dsrl.stages.retrieve.index_build import open_index
from dsrl.stages.retrieve.ingest import Ingest

TEXTS = (
    "The market stall sells apples and pears.",
    "Books lie on the shelves of the school library.",
    "An old library in the harbour town keeps maps of markets.",
    "Runners were running to the harbour.",
)


def write_corpus(folder: Path, texts: tuple[str, ...], name: str = "small") -> Corpus:
    """A corpus of one document per text, with its manifest."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)]
    content = "".join(lines).encode()
    (folder / f"{name}.jsonl").write_bytes(content)
    manifest = {
        "name": name, "file": f"{name}.jsonl", "rows": len(texts), "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "CC0-1.0", "source": "this test", "field": "text",
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    return find_corpus(str(folder / f"{name}.json"))


def open_corpora(folder: Path, *corpora: Corpus) -> TantivySearcher:
    return open_index(folder, corpora, Progress(io.StringIO()))


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> TantivySearcher:
    folder = tmp_path_factory.mktemp("index")
    return open_corpora(folder / "index", write_corpus(folder, TEXTS))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The runners were running", ["runner", "were", "run"]),
        ("Markets, market's & MARKET-places", ["market", "market", "market", "place"]),
        (
            "p<0.001, 1,000 mg, 3.5mg: don't, e.g.",
            ["p", f"0{NUMBER_JOINER}001", f"1{NUMBER_JOINER}000", "mg", f"3{NUMBER_JOINER}5mg", "don", "t", "e", "g"],
        ),
        ("end. Next C++ snake_case, the cat\u2019s", ["end", "next", "c", "snake", "case", "cat"]),
        ("\u6f22\u5b57 ABC\u6f22 \uc11c\uc6b8", ["\u6f22", "\u5b57", "abc", "\u6f22", "\uc11c\uc6b8"]),
        ("to be or not to be", []),
        ("x" * 41, []),
        ("", []),
    ],
)
def test_analyzer(text: str, tokens: list[str]) -> None:
    assert make_analyzer().analyze(normalize(text)) == tokens


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("library", {"small/d1", "small/d2"}),
        ("Libraries", {"small/d1", "small/d2"}),
        ("run", {"small/d3"}),
        ("apple harbour", {"small/d0", "small/d2", "small/d3"}),
        ("the of and", set()),
        ("quantum", set()),
        ("text:(library", {"small/d1", "small/d2"}),
        ('C++ "unbalanced', set()),
        ("*", set()),
        ("", set()),
    ],
)
def test_search(searcher: TantivySearcher, query: str, found: set[str]) -> None:
    assert {hit.source for hit in searcher.search(query, 10)} == found


@given(st.text())
@settings(max_examples=50)
def test_any_text_is_a_query(searcher: TantivySearcher, query: str) -> None:
    assert len(searcher.search(query, 2)) <= 2


def test_scores_are_bm25(searcher: TantivySearcher) -> None:
    tokens = [make_analyzer().analyze(normalize(text)) for text in TEXTS]
    mean = sum(map(len, tokens)) / len(tokens)
    rarity = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))

    def expected(document: int) -> float:
        return rarity * 2.2 / (1 + 1.2 * (0.25 + 0.75 * len(tokens[document]) / mean))

    scores = {hit.source: hit.score for hit in searcher.search("library", 10)}
    assert scores == pytest.approx({"small/d1": expected(1), "small/d2": expected(2)}, rel=1e-4)


def test_ties_are_in_corpus_order_and_shorter_lists_are_prefixes(tmp_path: Path) -> None:
    same = write_corpus(tmp_path, tuple(f"a red kite {number}" for number in range(60)))
    searcher = open_corpora(tmp_path / "index", same)
    whole = [hit.source for hit in searcher.search("kite", 100)]
    assert whole == [f"small/d{number}" for number in range(60)]
    for limit in (1, 7, 59, 60):
        assert [hit.source for hit in searcher.search("kite", limit)] == whole[:limit]


@pytest.mark.parametrize(
    "query", ["library " * 2000, '"harbour" AND -(library OR', "\u56fe\u4e66\u9986 " * 3000, "x" * 10_000]
)
def test_long_and_unusual_queries_are_answered(searcher: TantivySearcher, query: str) -> None:
    assert len(searcher.search(query, 3)) <= 3
    assert searcher.search_many([query, "library"], 1)[1][0].source == "small/d1"


def test_a_hit_has_the_offset_of_its_text(tmp_path: Path) -> None:
    text = "Cats sleep all day. " * 40 + "Bees make honey in the hive. " + "Dogs bark. " * 40
    corpus = write_corpus(tmp_path, (text,))
    searcher = open_index(tmp_path / "index", [corpus], Progress(io.StringIO()), Ingest(max_chars=60))
    (hit,) = searcher.search("honey", 3)
    assert text[hit.offset :].startswith(hit.text)
    assert "Bees make honey" in hit.text


def test_texts_are_compressed_in_small_blocks(tmp_path: Path) -> None:
    open_corpora(tmp_path / "index", write_corpus(tmp_path, TEXTS))
    (meta,) = (tmp_path / "index").glob("*/meta.json")
    assert json.loads(meta.read_text())["index_settings"]["docstore_blocksize"] == BLOCK_BYTES


def test_several_corpora_share_one_index(tmp_path: Path) -> None:
    first, second = write_corpus(tmp_path, ("a red kite",), "one"), write_corpus(tmp_path, ("a blue kite",), "two")
    searcher = open_corpora(tmp_path / "index", first, second)
    assert [hit.source for hit in searcher.search("kite", 5)] == ["one/d0", "two/d0"]


def test_concurrent_callers_build_an_index_once(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, TEXTS)
    with ThreadPoolExecutor(4) as pool:
        searchers = list(pool.map(lambda _: open_corpora(tmp_path / "index", corpus), range(4)))
    assert {searcher.num_documents for searcher in searchers} == {4}
    (folder,) = (path for path in (tmp_path / "index").iterdir() if not path.name.startswith("."))
    made = (folder / "complete.json").stat().st_mtime_ns
    assert isinstance(corpus.location, Path)
    corpus.location.unlink()
    assert open_corpora(tmp_path / "index", corpus).num_documents == 4
    assert (folder / "complete.json").stat().st_mtime_ns == made


def test_remains_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, TEXTS)
    open_corpora(tmp_path / "index", corpus)
    (folder,) = (path for path in (tmp_path / "index").iterdir() if path.is_dir())
    folder.rename(folder.with_name(f".making-{folder.name}"))
    assert open_corpora(tmp_path / "index", corpus).num_documents == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"id": "a", "text": "fine"}\n{"id": ', "line 2"),
        (b'{"id": "a", "body": "fine"}\n', "line 1: .* id, body"),
        (b'["a"]\n', "line 1"),
        (b'{"id": "a", "text": "changed"}\n', "sha256"),
    ],
)
def test_an_invalid_corpus_leaves_no_index(tmp_path: Path, content: bytes, words: str) -> None:
    corpus = write_corpus(tmp_path, TEXTS)
    assert isinstance(corpus.location, Path)
    corpus.location.write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_index(tmp_path / "index", [corpus], Progress(io.StringIO()), Ingest(max_malformed=0))
    assert not [path for path in (tmp_path / "index").iterdir() if not path.name.startswith(".")]
