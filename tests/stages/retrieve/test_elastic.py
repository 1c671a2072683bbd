"""What `retriever=elasticsearch` decides without a server, and what it says of servers that are none."""

import json
import threading
import time
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
from dsrl.stages.retrieve import Elasticsearch, Ingest
from dsrl.stages.retrieve.elastic.access import Access
from dsrl.stages.retrieve.elastic.connection import VENDORED
from dsrl.stages.retrieve.elastic.failures import reason, refused
from dsrl.stages.retrieve.elastic.mapping import FIELDS, check_mapping, places
from dsrl.stages.retrieve.elastic.searcher import MOST_WORDS, WORD, body, bounded


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
def test_the_client_gets_a_port(url: str, address: str) -> None:
    assert Access(url=url).address == address


@pytest.mark.parametrize(
    "url",
    ["localhost:9200", "ftp://host", "http://", "http://h:99999", "http://h:x", "", "https://me:hidden@host:9200"],
)
def test_a_wrong_address_is_refused_without_repeating_an_account(url: str) -> None:
    with pytest.raises(UserError, match=r"retriever\.url") as refusal:
        assert Access(url=url).address
    assert "hidden" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"ELASTICSEARCH_API_KEY": "k"}, {"api_key": "k"}),
        ({"ELASTICSEARCH_USERNAME": "u", "ELASTICSEARCH_PASSWORD": "p"}, {"basic_auth": ("u", "p")}),
        ({"ELASTICSEARCH_USERNAME": "u"}, "ELASTICSEARCH_PASSWORD is not set"),
        ({"ELASTICSEARCH_PASSWORD": "p"}, "ELASTICSEARCH_USERNAME is not set"),
        ({"ELASTICSEARCH_API_KEY": "k", "ELASTICSEARCH_USERNAME": "u"}, "both"),
        ({"ELASTICSEARCH_CA_FILE": "nowhere.pem"}, "names no file"),
    ],
)
def test_accounts_come_from_the_environment(
    variables: dict[str, str], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    access = Access(url="https://localhost:9200")
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            access.arguments()
    else:
        assert access.arguments() == {"hosts": ["https://localhost:9200"], **expected}


def test_the_identity_knows_the_passages_and_not_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write(tmp_path, "one", "a red kite")
    plain = Elasticsearch(corpora=(corpus,))
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", "hidden")
    elsewhere = Elasticsearch(
        corpora=(corpus,), url="https://h:1", prefix="other", shards=3, timeout=1.0, keywords=("kite",)
    )
    assert elsewhere.key_fields() == plain.key_fields()
    assert "hidden" not in json.dumps(elsewhere.key_fields()) + repr(elsewhere)
    assert Elasticsearch(corpora=(corpus,), ingest=Ingest(max_chars=100)).key_fields() != plain.key_fields()
    before = plain.key_fields()
    write(tmp_path, "one", "a blue kite")
    assert plain.key_fields() != before


def test_two_corpora_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    corpora = (write(tmp_path, "one", "a"), write(tmp_path / "other", "one", "b"))
    with pytest.raises(UserError, match="one, one"):
        Elasticsearch(corpora=corpora).check()


@pytest.mark.parametrize("prefix", ["", "-a", "A", "a*", "a/b", "_a"])
def test_a_prefix_is_the_beginning_of_a_name(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Elasticsearch(corpora=("everyday",), prefix=prefix)


def test_more_corpora_at_the_end_leave_the_first_ones_be() -> None:
    one, two, three = ("a", ["x"]), ("b", ["y"]), ("c", ["z"])
    assert places("p", [one, two, three], {})[:2] == places("p", [one, two], {})
    assert places("p", [two, one], {})[1] != places("p", [one], {})[0]
    assert places("p", [one], {"max_chars": 1}) != places("p", [one], {})
    assert {place.alias.partition("-")[0] for place in places("p", [one, two], {})} == {"p"}


@given(st.text())
def test_short_queries_are_left_whole(query: str) -> None:
    assert bounded(query) == query.strip() or len(WORD.findall(query)) > MOST_WORDS


@pytest.mark.parametrize("word", ["word ", "\u6f22", "\u00e9 ", "x" * 255, "\U0001f600"])
def test_long_queries_end_after_so_many_words(word: str) -> None:
    assert len(WORD.findall(bounded(word * 2000))) == MOST_WORDS


def test_a_query_is_never_parsed_and_pages_follow_each_other() -> None:
    query = 'text:(foo OR "bar" C++ *'
    first = body(query, 5, [])
    assert first["query"] == {"match": {"text": {"query": query, "operator": "or"}}}
    assert first["sort"] == [{"_score": "desc"}, {"number": "asc"}]
    assert body(query, 5, [{"sort": [2.5, 7]}, {"sort": [1.5, 3]}])["search_after"] == [1.5, 3]


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"properties": {}},
        {"properties": {**FIELDS, "text": {"type": "keyword"}}},
        {"properties": {**FIELDS, "text": {**FIELDS["text"], "analyzer": "standard"}}},
        {"properties": {**FIELDS, "more": {"type": "long"}}},
    ],
)
def test_an_index_with_other_fields_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="other fields"):
        check_mapping("an-index", found)


def test_an_index_of_ours_is_known() -> None:
    check_mapping("an-index", {"_meta": {}, "dynamic": "strict", "properties": FIELDS})


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, UserError, "refuses a request"),
        (401, UserError, "ELASTICSEARCH_API_KEY"),
        (403, UserError, "create_index"),
        (413, UserError, "request_bytes"),
        (429, StageFailed, "overloaded"),
        (503, StageFailed, "overloaded"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, kind: type[UserError], words: str) -> None:
    error = refused(status, {"error": {"type": "a_type", "reason": "a reason"}}, Access())
    assert type(error) is kind
    assert words in str(error)
    assert f"HTTP {status}: a_type: a reason" in str(error)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"error": "short"}, "short"),
        ({"error": {"type": "t", "reason": "r", "root_cause": [{"type": "u", "reason": "v"}]}}, "u: v"),
        ({"error": {"type": "t", "reason": "r", "caused_by": {"reason": "why"}}}, "t: r: why"),
        ("x" * 1000, "x" * 300),
        (None, "None"),
        ("", "no reason given"),
    ],
)
def test_the_server_is_quoted_briefly(given: Any, words: str) -> None:
    assert reason(given) == words


def test_what_is_asked_for_is_plain_json() -> None:
    assert (
        VENDORED.sub(r"application/\1", "application/vnd.elasticsearch+json; compatible-with=9") == "application/json"
    )
    ndjson = "application/vnd.elasticsearch+x-ndjson; compatible-with=9"
    assert VENDORED.sub(r"application/\1", ndjson) == "application/x-ndjson"


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """A server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ELASTIC = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}
OLD = b'{"version": {"number": "6.8.0"}}'


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (200, b"<html>", {"Content-Type": "text/html"}, "is not an Elasticsearch"),
        (404, b"<html>", {"Content-Type": "text/html"}, "is not an Elasticsearch"),
        (200, b'{"version": {"number": "2.11.0", "distribution": "opensearch"}}', {"Content-Type": "application/json"},
         "is not an Elasticsearch"),
        (200, b"{}", ELASTIC, "is not an Elasticsearch"),
        (200, b"{", ELASTIC, "is not an Elasticsearch"),
        (200, OLD, ELASTIC, "too old"),
        (401, b'{"error": {"type": "security_exception", "reason": "missing"}}', ELASTIC, "doesn't know who asks"),
        (403, b'{"error": {"type": "security_exception", "reason": "denied"}}', ELASTIC, "denies this account"),
        (503, b'{"error": "starting"}', ELASTIC, "overloaded or broken"),
    ],
)  # fmt: skip
def test_what_answers_is_looked_at_first(
    status: int, body: bytes, headers: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", "hidden-key")
    with answering(status, body, headers) as url:
        described = Elasticsearch(corpora=(write(tmp_path, "one", "a red kite"),), url=url)
        described.check()
        with pytest.raises(UserError, match=words) as refusal:
            described.open(tmp_path / "index", Progress())
    assert "hidden-key" not in str(refusal.value)


def test_a_server_that_is_down_is_known_at_once(tmp_path: Path) -> None:
    described = Elasticsearch(corpora=(write(tmp_path, "one", "a red kite"),), url="http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StageFailed, match="no server answers") as refusal:
        described.open(tmp_path / "index", Progress())
    assert time.monotonic() - began < 30
    assert "retriever=embedded" in str(refusal.value)
