"""`retriever=elasticsearch` without a real server: addresses, credentials, keys, requests, error messages."""

import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import Ingest, SearchServer
from dsrl.stages.retrieve.search_server.access import Access
from dsrl.stages.retrieve.search_server.errors import ServerError, explain
from dsrl.stages.retrieve.search_server.layout import FIELDS, MAPPINGS, check_layout, creation_request, index_names
from dsrl.stages.retrieve.search_server.searcher import MAX_WORDS, WORD, prepare_query, search_body, sorted_search_body


def write(folder: Path, name: str, *texts: str) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts)))
    return str(path)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:9200", "http://localhost:9200"),
        ("https://search.example.org", "https://search.example.org:443"),
        ("http://search.example.org/elastic/", "http://search.example.org:80/elastic"),
        ("https://[::1]:9200", "https://[::1]:9200"),
    ],
)
def test_addresses_have_a_port(url: str, address: str) -> None:
    assert Access(url=url).addresses == [address]
    assert Access(url=(url, "http://other:1")).addresses == [address, "http://other:1"]


@pytest.mark.parametrize(
    "url",
    ["localhost:9200", "ftp://host", "http://", "http://h:99999", "http://h:x", "", "https://me:hidden@host:9200"],
)
def test_a_wrong_address_is_refused_without_repeating_credentials(url: str) -> None:
    with pytest.raises(UserError, match=r"retriever\.url") as refusal:
        assert Access(url=url).addresses
    assert "hidden" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"API_KEY": "aTpr"}, "ApiKey aTpr"),
        ({"API_KEY": "i:k"}, "ApiKey aTpr"),
        ({"USERNAME": "u", "PASSWORD": "p"}, "Basic dTpw"),
    ],
)
def test_credentials_come_from_the_environment(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"ELASTICSEARCH_{name}", value)
    assert Access().authorization() == expected


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"USERNAME": "u"}, "ELASTICSEARCH_PASSWORD"),
        ({"PASSWORD": "p"}, "ELASTICSEARCH_USERNAME"),
        ({"API_KEY": "k", "USERNAME": "u"}, "unset ELASTICSEARCH_API_KEY"),
        ({"CA_FILE": "nowhere.pem"}, "nowhere.pem"),
        ({"CA_FINGERPRINT": "12:ab"}, "64"),
    ],
)
def test_incomplete_credentials_are_refused(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"ELASTICSEARCH_{name}", value)
    with pytest.raises(UserError, match=words):
        Access(url="https://localhost:9200").check()


def test_a_cloud_id_contains_the_address() -> None:
    encoded = b64encode(b"eu-west.aws.example.org$abc123$def456").decode()
    assert Access(cloud_id=f"mine:{encoded}").addresses == ["https://abc123.eu-west.aws.example.org:443"]
    with pytest.raises(UserError, match="cloud_id"):
        Access(cloud_id="mine:?").check()


def test_the_key_depends_on_the_passages_not_on_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write(tmp_path, "one", "a red kite")
    plain = SearchServer(corpora=(corpus,))
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", "hidden")
    elsewhere = SearchServer(
        corpora=(corpus,), url="https://h:1", prefix="other", shards=3, timeout=1.0, keywords=("kite",)
    )
    assert elsewhere.key_fields() == plain.key_fields()
    assert "hidden" not in json.dumps(elsewhere.key_fields()) + repr(elsewhere)
    assert SearchServer(corpora=(corpus,), ingest=Ingest(max_chars=100)).key_fields() != plain.key_fields()
    before = plain.key_fields()
    write(tmp_path, "one", "a blue kite")
    assert plain.key_fields() != before


def test_two_corpora_with_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    corpora = (write(tmp_path, "one", "a"), write(tmp_path / "other", "one", "b"))
    with pytest.raises(UserError, match="one, one"):
        SearchServer(corpora=corpora).check()


@pytest.mark.parametrize("prefix", ["", "-a", "A", "a*", "a/b", "_a"])
def test_a_prefix_must_start_a_valid_index_name(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        SearchServer(corpora=("everyday",), prefix=prefix)


def test_appending_a_corpus_keeps_the_names_of_the_first_ones() -> None:
    one, two, three = ("a", ["x"]), ("b", ["y"]), ("c", ["z"])
    assert index_names("p", [one, two, three], {})[:2] == index_names("p", [one, two], {})
    assert index_names("p", [two, one], {})[1] != index_names("p", [one], {})[0]
    assert index_names("p", [one], {"max_chars": 1}) != index_names("p", [one], {})
    assert {name.alias.partition("-")[0] for name in index_names("p", [one, two], {})} == {"p"}


@given(st.text(st.characters(codec="utf-8")))
def test_short_queries_are_unchanged(query: str) -> None:
    assert prepare_query(query) == query.strip() or len(WORD.findall(query)) > MAX_WORDS


@pytest.mark.parametrize("word", ["word ", "\u6f22", "\u00e9 ", "x" * 255, "\U0001f600"])
def test_long_queries_are_cut(word: str) -> None:
    assert len(WORD.findall(prepare_query(word * 2000))) == MAX_WORDS


def test_queries_are_not_parsed_and_pages_follow_each_other() -> None:
    query = 'text:(foo OR "bar" C++ *'
    assert search_body(query, 5)["query"] == {"match": {"text": {"query": query, "operator": "or"}}}
    assert sorted_search_body(query, 5, [])["sort"] == [{"_score": "desc"}, {"number": "asc"}]
    assert sorted_search_body(query, 5, [{"sort": [2.5, 7]}, {"sort": [1.5, 3]}])["search_after"] == [1.5, 3]
    assert prepare_query("half \ud800 pair") == "half ? pair"


@pytest.mark.parametrize(
    "mappings",
    [
        {},
        {"properties": {}},
        {"properties": {**FIELDS, "text": {"type": "keyword"}}},
        {"properties": {**FIELDS, "text": {**FIELDS["text"], "analyzer": "standard"}}},
        {"properties": {**FIELDS, "text": {**FIELDS["text"], "norms": False}}},
        {"properties": FIELDS, "runtime": {"text": {"type": "keyword"}}},
        {"properties": FIELDS, "_source": {"enabled": False}},
        {"properties": FIELDS, "_routing": {"required": True}},
    ],
)
def test_an_index_that_changes_a_search_is_refused(mappings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="an-index"):
        check_layout("an-index", {"mappings": mappings})


@pytest.mark.parametrize(
    "settings", [{"default_pipeline": "p"}, {"analysis": {"analyzer": {"english": {"type": "standard"}}}}]
)
def test_settings_that_change_a_search_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="an-index"):
        check_layout("an-index", {"mappings": MAPPINGS, "settings": {"index": settings}})


def test_harmless_additions_are_accepted() -> None:
    fields = {**FIELDS, "@timestamp": {"type": "date"}, "text": {**FIELDS["text"], "store": True}}
    settings = creation_request(1, 0)["settings"]["index"]
    check_layout("an-index", {"mappings": {"_meta": {}, "properties": fields}, "settings": {"index": settings}})


def test_shards_and_replicas_are_sent_only_if_given() -> None:
    assert not {"number_of_shards", "number_of_replicas"} & creation_request(None, None)["settings"]["index"].keys()
    assert creation_request(3, 0)["settings"]["index"]["number_of_replicas"] == 0


@pytest.mark.parametrize(
    ("status", "type", "kind", "words"),
    [
        (400, "a_type", UserError, "a reason"),
        (401, "security_exception", UserError, "ELASTICSEARCH_API_KEY"),
        (403, "security_exception", UserError, "privilege"),
        (403, "cluster_block_exception", StageFailed, "blocked"),
        (404, "index_not_found_exception", UserError, "deleted"),
        (413, "", UserError, "max_chars"),
        (429, "circuit_breaking_exception", StageFailed, "memory"),
        (429, "es_rejected_execution_exception", StageFailed, "concurrency"),
        (503, "", StageFailed, "patience"),
    ],
)
def test_the_type_of_an_error_decides(status: int, type: str, kind: type[UserError], words: str) -> None:  # noqa: A002
    body = {"error": {"type": type, "reason": "a reason"}}
    error = explain(ServerError(status, body, "POST", "/an-index/_bulk"), Access())
    assert error.__class__ is kind
    assert words in str(error)
    assert f"HTTP {status} for POST /an-index/_bulk: " in str(error)


def test_a_denial_without_a_reason_names_index_and_privilege() -> None:
    error = explain(ServerError(403, None, "GET", "/an-index/_count"), Access())
    assert "the privilege read on index an-index" in str(error)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "short"}, "short"),
        ({"error": {"type": "t", "reason": "r", "root_cause": [{"type": "u", "reason": "v"}]}}, "u: v"),
        ({"error": {"type": "t", "reason": "r", "caused_by": {"reason": "why"}}}, "t: r: why"),
        ({"message": "forbidden"}, "forbidden"),
        ("x" * 1000, "x" * 300),
        (None, "no reason given"),
        ("", "no reason given"),
    ],
)
def test_the_server_is_quoted_briefly(body: Any, words: str) -> None:
    assert ServerError(400, body, "GET", "/").reason == words


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """A server with the same reply to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (200, b"<html>", HTML, "not a search server"),
        (404, b"<html>", HTML, "not a search server"),
        (200, b"{}", JSON, "not a search server"),
        (200, b"{", JSON, "not a search server"),
        (200, b'{"version": {"number": "6.8.0"}}', JSON, "6.8.0"),
        (401, b'{"error": {"type": "security_exception", "reason": "missing"}}', JSON, "export ELASTICSEARCH_API_KEY"),
        (403, b"", JSON, "privilege"),
        (503, b'{"error": "starting"}', JSON, "503"),
        (302, b"", {"Location": "https://login.example.org/"}, "login.example.org"),
    ],
)
def test_the_server_is_checked_first(
    status: int, body: bytes, headers: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", "hidden-key")
    with answering(status, body, headers) as url:
        retriever = SearchServer(corpora=(write(tmp_path, "one", "a red kite"),), url=url, patience=0.5)
        retriever.check()
        with pytest.raises(UserError, match=words) as refusal:
            retriever.open(tmp_path / "index", Progress())
    assert "hidden-key" not in str(refusal.value)


def test_a_server_that_is_down_is_reported_within_seconds(tmp_path: Path) -> None:
    retriever = SearchServer(corpora=(write(tmp_path, "one", "a red kite"),), url="http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(StageFailed, match="retriever=embedded"):
        retriever.open(tmp_path / "index", Progress())
    assert time.monotonic() - start < 30
