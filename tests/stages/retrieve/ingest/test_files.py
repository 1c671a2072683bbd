"""Reads real files of every format, valid and broken, as pieces."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.core.errors import UserError
from dsrl.stages.retrieve import Embedded
from dsrl.stages.retrieve.corpus import find_corpus
from dsrl.stages.retrieve.ingest import Ingest, IngestReport, Piece, read_pieces

ROWS = [
    {"id": "a", "text": "The first text."},
    {"text": "The second."},
    {"id": 3, "text": "The third, \u56fe\u4e66\u9986."},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def tar(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


def parquet(rows: list[dict[str, object]]) -> bytes:
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"id": str(row.get("id")), **row} for row in rows]), target)
    return target.getvalue()


def ingested(path: Path, report: IngestReport | None = None, **options: object) -> list[Piece]:
    return list(read_pieces([find_corpus(str(path))], Ingest(**options), report or IngestReport()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "sources"),
    [
        ("c.jsonl", LINES, ["c/a", "c/2", "c/3"]),
        ("c.ndjson", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n"), ["c/a", "c/3", "c/3"]),
        ("c.jsonl.gz", gzip.compress(LINES), ["c/a", "c/2", "c/3"]),
        ("c.jsonl.gz", gzip.compress(LINES[:20]) + gzip.compress(LINES[20:]), ["c/a", "c/2", "c/3"]),
        ("c.jsonl.zst", zstd(LINES), ["c/a", "c/2", "c/3"]),
        ("c.tar", tar({"x/one.jsonl": LINES}), ["c/a", "c/x/one.jsonl:2", "c/3"]),
        (
            "c.tar.gz",
            gzip.compress(tar({"./one.jsonl.gz": gzip.compress(LINES)})),
            ["c/a", "c/one.jsonl.gz:2", "c/3"],
        ),
        ("c.tgz", gzip.compress(tar({"a.jsonl": LINES, "b/readme.rst": b"?"})), ["c/a", "c/a.jsonl:2", "c/3"]),
        ("c.tar.zst", zstd(tar({"notes/one.md": b"A note."})), ["c/notes/one.md"]),
        ("c.parquet", parquet([{"id": "p", "text": "One."}, {"id": "q", "text": "Two."}]), ["c/p", "c/q"]),
        ("c.txt", b"\xef\xbb\xbfA text.\r\nTwo lines.", ["c/c.txt"]),
    ],
)
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str, content: bytes, sources: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    report = IngestReport()
    pieces = ingested(tmp_path / name, report)
    assert [piece.source for piece in pieces] == sources
    assert (report.read, report.kept, report.pieces) == (len(sources),) * 3
    assert len(pieces) < 3 or [piece.text for piece in pieces] == [row["text"] for row in ROWS]
    assert report.num_malformed == 0
    assert report.bytes in (0, len(content)) or name.endswith("parquet")


def test_files_of_a_folder_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two.txt").write_text("Second.")
    (folder / "a.jsonl").write_bytes(LINES)
    (folder / "c.tar").write_bytes(tar({"deep/three.md": b"Third."}))
    (folder / "photo.jpg").write_bytes(b"?")
    (folder / "link.txt").symlink_to("/etc/hostname")
    report = IngestReport()
    sources = [piece.source for piece in ingested(folder, report)]
    assert sources == ["texts/a", "texts/a.jsonl:2", "texts/3", "texts/b/two.txt", "texts/c.tar/deep/three.md"]
    assert report.skipped == 1


def test_the_key_of_a_folder_depends_on_its_content_only(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "texts").mkdir(parents=True)
        (tmp_path / place / "texts" / "a.txt").write_text("same")
    one, two = (find_corpus(str(tmp_path / place / "texts")) for place in ("one", "two"))
    assert one.key_fields() == two.key_fields()
    (tmp_path / "two" / "texts" / "b.txt").write_text("more")
    assert find_corpus(str(tmp_path / "two" / "texts")).key_fields() != one.key_fields()


def test_duplicates_are_dropped_across_corpora(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"text": "Same text."}\n{"text": "same  TEXT."}\n{"text": " "}\n')
    (tmp_path / "two.jsonl").write_text('{"text": "Same text."}\n{"text": "Other."}\n')
    report = IngestReport()
    corpora = [find_corpus(str(tmp_path / name)) for name in ("one.jsonl", "two.jsonl")]
    assert [piece.source for piece in read_pieces(corpora, Ingest(), report)] == ["one/1", "two/2"]
    assert (report.read, report.kept, report.duplicates, report.empty) == (4, 2, 2, 1)


def test_near_duplicates_are_dropped_if_configured(tmp_path: Path) -> None:
    pytest.importorskip("rensa", reason="near_duplicates needs rensa")
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join(words), " ".join([*words[:-1], "end"]), " ".join(reversed(words)), "short", "brief"]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = IngestReport()
    assert [piece.source for piece in ingested(tmp_path / "c.jsonl", report, near_duplicates=0.7)] == [
        "c/1", "c/3", "c/4", "c/5"
    ]  # fmt: skip
    assert report.near_duplicates == 1


@given(st.text(alphabet="ab. \n\u56fe", max_size=200), st.integers(5, 40))
@settings(max_examples=20)
def test_every_piece_is_in_its_document_at_its_offset(text: str, limit: int) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        (Path(folder) / "c.jsonl").write_text(json.dumps({"text": text + " end"}))
        made = ingested(Path(folder) / "c.jsonl", max_chars=limit)
    assert all((text + " end")[piece.offset :].startswith(piece.text) for piece in made)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": ', "not JSON: {"),
        (b"[1]", "not an object but [1]"),
        (b'{"body": "x", "title": "y"}', "`text`; its fields: body, title"),
        (b'{"text": 7}', "`text`"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 0xe9 at 13)"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": "' + b"x" * 5000 + b'"}', "longer than 4000 bytes"),
    ],
)
def test_a_malformed_row_is_skipped_and_reported_with_its_line(tmp_path: Path, line: bytes, words: str) -> None:
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}')
    report, most = IngestReport(), 4000 if len(line) < 9000 else 200_000
    pieces = ingested(tmp_path / "c.jsonl", report, max_document_bytes=most)
    assert [piece.text for piece in pieces] == ["before", "after"]
    (found,) = report.malformed
    assert (found.file, found.line) == (str(tmp_path / "c.jsonl"), 2)
    assert words in found.found


def test_too_many_malformed_rows_raise(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n' + "?\n" * 4)
    assert len(ingested(tmp_path / "c.jsonl", max_malformed=4)) == 1
    with pytest.raises(UserError, match=r"c: 4 (.|\n)*line 2(.|\n)*max_malformed"):
        ingested(tmp_path / "c.jsonl", max_malformed=3)


def with_member(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        info = tarfile.TarInfo("a.jsonl")
        change(info)
        archive.addfile(info)
    return target.getvalue()


def link(kind: bytes) -> bytes:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = kind, "/etc/passwd"

    return with_member(change)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.tar", tar({"../a.jsonl": LINES}), "outside"),
        ("c.tar", tar({"x/../../a.jsonl": LINES}), "outside"),
        ("c.tar", tar({"/etc/a.jsonl": LINES}), "outside"),
        ("c.tar", link(tarfile.SYMTYPE), "a link to /etc/passwd"),
        ("c.tar", link(tarfile.LNKTYPE), "a link to /etc/passwd"),
        ("c.tar", link(tarfile.CHRTYPE), "a device"),
        ("c.tar", b"no archive at all", "tar archive"),
        ("c.tar", tar({"a.jsonl": LINES * 100})[:2000], "tar archive"),
        ("c.jsonl.gz", gzip.compress(LINES * 50)[:-20], "truncated"),
        ("c.jsonl.gz", b"no gzip", "truncated"),
        ("c.jsonl.zst", zstd(LINES * 50)[:-20], "truncated"),
        ("c.tar.gz", gzip.compress(tar({"a.jsonl": LINES}))[:-30], "truncated|tar archive"),
        ("c.parquet", b"PAR1", "Parquet"),
        ("c.parquet", parquet([{"body": "x"}]), "column `text`"),
        ("c.jsonl", '{"text": "x"}'.encode("utf-16"), "not UTF-8 text\n  got:     UTF-16"),
        ("c.jsonl", gzip.compress(LINES), "not UTF-8 text\n  got:     gzip"),
        ("c.jsonl", b"", "corpus c is empty"),
        ("c.jsonl", b"\n \n", "corpus c is empty"),
        ("c.tar", tar({}), "corpus c is empty"),
        ("c.pdf", b"?", "c.pdf"),
    ],
)
def test_broken_and_malicious_files_are_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=words):
        ingested(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.stages.retrieve.ingest.files.MIN_SUSPICIOUS_BYTES", 1_000_000)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + b"x" * 20_000_000 + b'"}'))
    with pytest.raises(UserError, match="max_expansion"):
        ingested(tmp_path / "c.jsonl.gz")
    assert len(ingested(tmp_path / "c.jsonl.gz", max_expansion=5000, max_chars=10_000_000)) == 2


def test_check_finds_a_wrong_field(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"Text": "x"}\n')
    with pytest.raises(UserError, match="`text`; its fields: Text"):
        Embedded(corpora=(str(tmp_path / "c.jsonl"),)).check()
    Embedded(corpora=(str(tmp_path / "c.jsonl"),), ingest=Ingest(field="Text")).check()


def test_two_corpora_with_the_same_name_are_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.jsonl").write_bytes(LINES)
    with pytest.raises(UserError, match="c, c"):
        Embedded(corpora=(str(tmp_path / "x/c.jsonl"), str(tmp_path / "y/c.jsonl"))).check()


@pytest.mark.e2e
def test_a_dataset_is_streamed_and_an_unknown_one_named(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="datasets need dsrl[local]")
    (tmp_path / "train.jsonl").write_bytes(b'{"Body": "One."}\n{"Body": "Two."}\n')
    pieces = list(read_pieces([find_corpus(f"hf:{tmp_path}")], Ingest(field="Body"), IngestReport()))
    assert [piece.text for piece in pieces] == ["One.", "Two."]
    corpus = find_corpus("hf:nobody/nothing:small@abc#test")
    assert (corpus.name, corpus.location.config, corpus.location.split) == ("nothing", "small", "test")  # type: ignore[union-attr]
    with pytest.raises(UserError, match="hf:nobody/nothing"):
        list(corpus.documents())


@pytest.mark.e2e
def test_an_unreachable_hub_is_detected_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="datasets need dsrl[local]")
    for name in ("HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="ConnectionRefusedError"):
        list(find_corpus("hf:nobody/nothing").documents())
