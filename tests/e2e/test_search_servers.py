"""`retriever=elasticsearch` and `retriever=opensearch` against real servers (see `search_servers.py`).

Indexes that begin with `dsrl-test-` are created on them and deleted.
"""

import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import Embedded, SearchServer
from dsrl.stages.retrieve.corpus import find_corpus
from dsrl.stages.retrieve.search_server import layout, searcher
from dsrl.stages.retrieve.search_server.client import SearchClient
from dsrl.stages.retrieve.search_server.errors import ServerError
from dsrl.stages.retrieve.search_server.layout import IndexName
from tests.command import ENVIRONMENT
from tests.e2e import search_servers
from tests.e2e.fault_proxy import Forward, Proxy, Reply, Request, proxied
from tests.e2e.runs import SMALL, Place
from tests.e2e.search_servers import Server

pytestmark = pytest.mark.e2e
WORDS = "amber birch cedar delta ember fjord grove heron inlet juniper kelp lagoon".split()  # noqa: SIM905
UNUSUAL = ['C++ "unbalanced', "text:(foo OR", "*", "", "  ", "\u6f22\u5b57" * 5000, "x" * 10_000, "\U0001f600" * 3000]
UNUSUAL += ["\x00 \ud800", "a AND NOT b~2^3 [x TO y] /r/", " ".join(f"w{number}" for number in range(5000))]
UNUSUAL += ["amber " * 4000]
REJECTED = {"type": "es_rejected_execution_exception", "reason": "full"}


@pytest.fixture(scope="module", params=search_servers.kinds())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with search_servers.running(request.param, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with search_servers.running("elasticsearch-secure", tmp_path_factory.mktemp("secure")) as server:
        yield server


@pytest.fixture
def retriever(server: Server, tmp_path: Path) -> Iterator[SearchServer]:
    """300 short passages under a prefix of their own, deleted at the end."""
    with prepared(server, tmp_path) as made:
        yield made


@contextmanager
def prepared(server: Server, folder: Path) -> Iterator[SearchServer]:
    prefix = f"dsrl-test-{uuid.uuid4().hex[:12]}"
    made = SearchServer(
        corpora=(write(folder, "one", range(300)),), url=server.url, prefix=prefix, **server.fields,
        concurrency=2, retries=3, patience=20.0, request_bytes=2000,
    )  # fmt: skip
    yield made
    for name in call(made, "GET", f"/{prefix}-*"):
        call(made, "DELETE", f"/{name}")


def write(folder: Path, name: str, numbers: range, more: str = "") -> str:
    """A corpus of passages that share words in many combinations, so that scores often tie."""
    path = folder / f"{name}.jsonl"
    texts = (
        " ".join(WORDS[number // step % len(WORDS)] for step in (1, 3, 7)) + f" {name}{more}" for number in numbers
    )
    rows = (
        json.dumps({"id": str(number), "text": f"{number} {text}"}) for number, text in zip(numbers, texts, strict=True)
    )
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def open_index(made: SearchServer, folder: Path) -> Any:
    return made.open(folder / "index", Progress(io.StringIO()))


def build(made: SearchServer, folder: Path) -> str:
    """Index the corpora; return the output."""
    output = io.StringIO()
    made.index(folder / "index", Progress(output))
    return output.getvalue()


def sources(made: SearchServer, folder: Path, query: str = "amber", limit: int = 1000) -> list[str]:
    found = open_index(made, folder)
    try:
        return [hit.source for hit in found.search(query, limit)]
    finally:
        found.close()


def call(made: SearchServer, method: str, path: str, body: Any = None) -> Any:
    """The reply to one request."""
    with SearchClient(made) as client:
        return client.call(method, path, body)


def exists(made: SearchServer, path: str) -> bool:
    with SearchClient(made) as client:
        try:
            client.run(client.request("GET", path))
        except UserError as error:
            if isinstance(error.__cause__, ServerError) and error.__cause__.status == 404:
                return False
            raise
    return True


def name_of(made: SearchServer) -> IndexName:
    return made.index_names(made.find_corpora())[-1]


def document_counts(made: SearchServer) -> dict[str, int]:
    stats = call(made, "GET", f"/{name_of(made).index}/_stats")["_all"]["primaries"]["docs"]
    return {"count": stats["count"], "deleted": stats["deleted"]}


@contextmanager
def through_proxy(server: Server, made: SearchServer, rule: Any = None) -> Iterator[tuple[Proxy, SearchServer]]:
    with proxied(server.url, rule, server.ca_file) as proxy:
        yield proxy, replace(made, url=proxy.url)


def test_passages_are_found_with_their_offsets(retriever: SearchServer, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    text = "Herons stand still. " * 150 + "A kestrel hovers over the field."
    long.write_text(json.dumps({"id": "x", "text": text}) + "\n")
    made = replace(retriever, corpora=(str(long), *retriever.corpora))
    report = made.index(tmp_path / "index", Progress())
    assert (report.read, report.kept, report.pieces) == (301, 301, 302)
    assert made.index(tmp_path / "index", Progress()).pieces == 302
    found = open_index(made, tmp_path)
    assert found.num_documents == 302
    (hit,) = found.search("kestrels", 10)
    assert hit.source == "long/x"
    assert text[hit.offset :] == hit.text
    assert found.search("kestrels", 0) == []
    found.close()


def test_ties_are_in_corpus_order_and_shorter_lists_are_prefixes(
    retriever: SearchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_index(retriever, tmp_path)
    whole = found.search("amber cedar", 1000)
    assert len(whole) > 100
    assert whole == sorted(whole, key=lambda hit: (-hit.score, int(hit.source.partition("/")[2])))
    for page in (2000, 7):
        monkeypatch.setattr(searcher, "PAGE_SIZE", page)
        monkeypatch.setattr(searcher, "HITS_PER_REQUEST", 20)
        for limit in (1, 5, 7, 8, 50, 1000):
            assert found.search("amber cedar", limit) == whole[:limit]
    queries = [*WORDS, "", "nothing of the kind", "amber cedar"]
    assert found.search_many(queries, 30) == [found.search(query, 30) for query in queries]
    found.close()


def test_any_text_is_a_query(retriever: SearchServer, tmp_path: Path) -> None:
    found = open_index(retriever, tmp_path)
    hits = found.search_many(UNUSUAL, 5)
    assert [len(few) for few in hits[:5]] == [0, 0, 0, 0, 0]
    assert len(hits[-1]) == 5
    found.close()


@pytest.mark.parametrize("corpus", ["synthetic", "everyday", "pubmedqa"])
def test_the_embedded_index_ranks_alike(corpus: str, retriever: SearchServer, tmp_path: Path) -> None:
    path, queries = shared_corpus(corpus, tmp_path)
    made = replace(retriever, corpora=(path,), request_bytes=1_000_000)
    here, there = Embedded(corpora=(path,)).open(tmp_path / "embedded", Progress()), open_index(made, tmp_path)
    pairs = zip(here.search_many(queries, 50), there.search_many(queries, 50), strict=True)
    shares = [agreement(*pair) for pair in pairs if any(pair)]
    there.close()
    assert len(shares) > 20
    assert sum(shares) / len(shares) >= 0.95


def shared_corpus(corpus: str, folder: Path) -> tuple[str, list[str]]:
    """A corpus for both engines, and queries."""
    if corpus == "everyday":
        return "everyday", [document.id.replace("-", " ") for document in find_corpus("everyday").documents()]
    if corpus == "synthetic":
        script = Path(__file__).parents[2] / "benchmarks/passages.py"
        for count, name, option in ((2000, "synthetic.jsonl", ()), (150, "queries.txt", ("--queries",))):
            subprocess.run([sys.executable, str(script), str(count), str(folder / name), *option], check=True)
        return str(folder / "synthetic.jsonl"), (folder / "queries.txt").read_text().splitlines()
    if not os.environ.get("DSRL_TEST_DATA"):
        pytest.xfail("needs DSRL_TEST_DATA, a folder with pubmedqa_labelled.json")
    rows = json.loads((Path(os.environ["DSRL_TEST_DATA"]) / "pubmedqa_labelled.json").read_text())
    path = folder / "pubmedqa.jsonl"
    texts = ({"id": key, "text": " ".join(row["CONTEXTS"])} for key, row in rows.items())
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    return str(path), [row["QUESTION"] for row in rows.values()][:400]


def agreement(one: list[Any], other: list[Any]) -> float:
    """Share of the top ten of `one` that is in the top ten of `other`, or ties with its last hit."""
    last = other[:10][-1].score * (1 - 1e-5) if other else 0.0
    top = {(hit.source, hit.offset) for hit in other if hit.score >= last}
    return sum((hit.source, hit.offset) in top for hit in one[:10]) / max(len(one[:10]), len(other[:10]))


def test_appending_a_corpus_sends_only_that_one(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    second = write(tmp_path, "two", range(290, 330), " birch")
    with through_proxy(server, retriever) as (proxy, first):
        build(first, tmp_path)
        sent = len(proxy.requests_to("_bulk"))
        both = replace(first, corpora=(*first.corpora, second))
        hits = sources(both, tmp_path, "birch")
        later = b"".join(request.body for request in proxy.requests_to("_bulk")[sent:])
        assert later.count(b'"create"') == 40
        assert {source.partition("/")[0] for source in hits} == {"one", "two"}
    together = replace(both, url=server.url, prefix=f"{retriever.prefix}-again")
    build(together, tmp_path)
    assert sources(together, tmp_path, "birch") == hits


def test_word_weights_are_those_of_all_corpora(retriever: SearchServer, tmp_path: Path) -> None:
    corpora = (*retriever.corpora, write(tmp_path, "two", range(0, 300, 9), " birch cedar cedar"))
    there = open_index(replace(retriever, corpora=corpora, shards=3), tmp_path)
    here = Embedded(corpora=corpora).open(tmp_path / "embedded", Progress())
    one, other = (engine.search("cedar birch two", 20) for engine in (there, here))
    there.close()
    assert [hit.source for hit in one] == [hit.source for hit in other]
    assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], rel=1e-4)


def test_a_killed_run_is_resumed(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    fourth = threading.Event()

    def hold(request: Request, forward: Forward) -> Reply:
        if "_bulk" in request.path and len(proxy.requests_to("_bulk")) > 3:
            fourth.set()
            time.sleep(1)
        return forward(request)

    with through_proxy(server, retriever) as (proxy, made):
        proxy.rule = hold
        script = f"""
from pathlib import Path
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import SearchServer
SearchServer(corpora={made.corpora!r}, url={proxy.url!r}, prefix={made.prefix!r}, **{server.fields!r},
    request_bytes=2000, concurrency=1).index(Path({str(tmp_path / "index")!r}), Progress())
"""
        child = subprocess.Popen([sys.executable, "-c", script], env={**ENVIRONMENT, **server.environment})
        assert fourth.wait(60)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not exists(retriever, f"/{name_of(retriever).alias}")
        time.sleep(1.2)
    assert len(sources(retriever, tmp_path)) == len(
        sources(replace(retriever, prefix=f"{retriever.prefix}-b"), tmp_path)
    )
    assert document_counts(retriever) == {"count": 300, "deleted": 0}


def test_concurrent_runs_fill_one_index(retriever: SearchServer, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda number: retriever.index(tmp_path / str(number), Progress()), range(3)))
    assert {report.pieces for report in reports} == {300}
    assert document_counts(retriever) == {"count": 300, "deleted": 0}


def overloaded(times: int) -> Callable[[Request, Forward], Reply]:
    """Rejects the first bulk requests, and half of the passages of further ones."""
    lock, seen = threading.Lock(), [0]

    def rule(request: Request, forward: Forward) -> Reply:
        if "_bulk" not in request.path:
            return forward(request)
        with lock:
            seen[0] += 1
            number = seen[0]
        if number <= times:
            return Reply(429, json.dumps({"error": REJECTED, "status": 429}).encode())
        if number > 3 * times:
            return forward(request)
        reply = forward(request)
        body = json.loads(reply.body)
        for item in body["items"][::2]:
            item["create"] = {"_id": item["create"]["_id"], "status": 429, "error": REJECTED}
        return replace(reply, body=json.dumps({**body, "errors": True}).encode())

    return rule


def test_rejected_passages_are_sent_again(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    with through_proxy(server, retriever, overloaded(2)) as (_, made):
        assert made.index(tmp_path / "index", Progress()).pieces == 300
    assert open_index(retriever, tmp_path).num_documents == 300


def test_a_server_that_stays_overloaded_ends_the_run(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    with through_proxy(server, retriever, overloaded(10**9)) as (_, made):
        with pytest.raises(StageFailed, match="429"):
            open_index(replace(made, retries=1), tmp_path)
        assert not exists(retriever, f"/{name_of(retriever).alias}")
    assert open_index(retriever, tmp_path).num_documents == 300


def test_incomplete_searches_are_repeated(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    timeout = {"timed_out": True, "_shards": {"failed": 0}, "hits": {"hits": []}}
    faults = [
        {"error": REJECTED, "status": 429},
        timeout,
        {"timed_out": False, "_shards": {"failed": 1}, "hits": {"hits": []}},
    ]

    def rule(request: Request, forward: Forward) -> Reply:
        reply = forward(request)
        if "_msearch" not in request.path or not faults:
            return reply
        body = json.loads(reply.body)
        body["responses"][0] = faults.pop()
        return replace(reply, body=json.dumps(body).encode())

    build(retriever, tmp_path)
    expected = open_index(retriever, tmp_path).search_many(WORDS, 5)
    with through_proxy(server, retriever, rule) as (_, made):
        assert open_index(made, tmp_path).search_many(WORDS, 5) == expected
        assert faults == []
        faults += [timeout] * 9
        with pytest.raises(StageFailed, match="503"):
            open_index(replace(made, patience=0.5), tmp_path).search("amber", 5)


def test_requests_over_the_limit_of_a_proxy_are_halved(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    def limit(request: Request, forward: Forward) -> Reply:
        if "_bulk" in request.path and len(request.body) > bound:
            return Reply(413, b"<html>too large</html>", {"Content-Type": "text/html"})
        return forward(request)

    bound = 4000
    with through_proxy(server, retriever, limit) as (_, made):
        assert open_index(replace(made, request_bytes=100_000), tmp_path).num_documents == 300
        bound = 50
        with pytest.raises(UserError, match=r"413(.|\n)*passage: number \d+ of one/"):
            open_index(replace(made, prefix=f"{made.prefix}-b"), tmp_path)


@pytest.mark.parametrize("complete", [False, True])
def test_an_index_with_other_fields_is_refused(complete: bool, retriever: SearchServer, tmp_path: Path) -> None:
    body: dict[str, Any] = {"mappings": {"properties": {"text": {"type": "keyword"}}}}
    if complete:
        body["aliases"] = {name_of(retriever).alias: {}}
    call(retriever, "PUT", f"/{name_of(retriever).index}", body)
    with pytest.raises(UserError, match="field text"):
        open_index(retriever, tmp_path)
    assert exists(retriever, f"/{name_of(retriever).index}")


def test_an_index_of_another_version_is_kept(retriever: SearchServer, tmp_path: Path) -> None:
    assert "version" not in build(replace(retriever, prefix=f"{retriever.prefix}-new"), tmp_path)
    older = name_of(retriever).alias.removesuffix(f"-v{layout.VERSION}") + "-v0"
    call(retriever, "PUT", f"/{older}-passages", {"aliases": {older: {}}})
    assert "another version" in build(retriever, tmp_path)
    assert exists(retriever, f"/{older}")


def test_a_changed_index_is_refused(retriever: SearchServer, tmp_path: Path) -> None:
    build(retriever, tmp_path)
    call(retriever, "DELETE", f"/{name_of(retriever).index}/_doc/7?refresh=true")
    with pytest.raises(UserError, match="299 passages"):
        open_index(retriever, tmp_path)


def test_an_index_that_is_deleted_during_a_search_is_named(retriever: SearchServer, tmp_path: Path) -> None:
    found = open_index(retriever, tmp_path)
    call(retriever, "DELETE", f"/{name_of(retriever).index}")
    with pytest.raises(UserError, match="index_not_found"):
        found.search("amber", 5)
    assert open_index(retriever, tmp_path).num_documents == 300


def test_redirects_are_refused(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    def redirect(request: Request, forward: Forward) -> Reply:
        if "_bulk" not in request.path:
            return forward(request)
        return Reply(307, headers={"Location": "https://login.example.org/"})

    with (
        through_proxy(server, retriever, redirect) as (_, made),
        pytest.raises(UserError, match=r"https://login\.example\.org/"),
    ):
        open_index(made, tmp_path)


def test_the_environment_selects_a_forward_proxy(
    retriever: SearchServer, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(retriever, url="http://search.invalid:9200")
    with proxied(server.url, None, server.ca_file) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert open_index(made, tmp_path).num_documents == 300
        assert proxy.requests_to("_bulk")
        monkeypatch.setenv("no_proxy", "search.invalid")
        with pytest.raises(StageFailed, match=r"search\.invalid"):
            open_index(replace(made, patience=0.1), tmp_path)


def test_the_next_address_is_used_when_one_is_down(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    scheme = server.url.partition(":")[0]
    made = replace(retriever, url=(f"{scheme}://localhost:9", server.url))
    assert open_index(made, tmp_path).num_documents == 300


def test_the_wrong_scheme_is_named(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    scheme, other = ("https", "http") if server.url.startswith("https:") else ("http", "https")
    wrong = server.url.replace(f"{scheme}:", f"{other}:", 1)
    with pytest.raises(UserError, match=f"retriever.url={scheme}://"):
        open_index(replace(retriever, url=wrong, patience=0.5), tmp_path)


needs_templates = pytest.mark.skipif(
    search_servers.kinds() == ("given",), reason="changes settings of the whole cluster: needs DSRL_TEST_SEARCH_SERVERS"
)


@contextmanager
def as_admin(server: Server) -> Iterator[SearchClient]:
    """A client that may change the cluster."""
    if server.kind != "elasticsearch-secure":
        fields = server.fields
    else:
        os.environ.update(ADMIN_NAME="admin", ADMIN_PASSWORD="admin-password")
        fields = {**server.fields, "username_env": "ADMIN_NAME", "password_env": "ADMIN_PASSWORD"}
    with SearchClient(SearchServer(corpora=("everyday",), url=server.url, **fields)) as client:
        yield client


@contextmanager
def template(server: Server, body: dict[str, Any]) -> Iterator[None]:
    with as_admin(server) as client:
        client.call("PUT", "/_index_template/all", {"index_patterns": ["dsrl-*"], "priority": 7, "template": body})
        try:
            yield
        finally:
            client.call("DELETE", "/_index_template/all")


@needs_templates
@pytest.mark.parametrize(
    "body",
    [
        {"mappings": {"properties": {"@timestamp": {"type": "date"}}}},
        {"mappings": {"_source": {"enabled": False}}},
        {"mappings": {"dynamic": True, "properties": {"text": {"type": "text", "norms": False, "index": False}}}},
        {"settings": {"index": {"default_pipeline": "missing", "final_pipeline": "missing"}}},
        {"settings": {"analysis": {"analyzer": {"english": {"type": "custom", "tokenizer": "standard"}}}}},
        {"settings": {"similarity": {"default": {"type": "boolean"}}}},
        {"settings": {"number_of_replicas": 2}, "aliases": {"passages": {}}},
    ],
)
def test_templates_change_no_search(
    body: dict[str, Any], retriever: SearchServer, server: Server, tmp_path: Path
) -> None:
    expected = open_index(retriever, tmp_path).search_many(WORDS, 20)
    with template(server, body):
        assert (
            open_index(replace(retriever, prefix=f"{retriever.prefix}-b"), tmp_path).search_many(WORDS, 20) == expected
        )


@needs_templates
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"mappings": {"_routing": {"required": True}}}, "_routing"),
        ({"settings": {"index": {"routing.allocation.require.box": "hot"}}}, "box"),
    ],
)
def test_harmful_templates_are_refused_and_leave_no_index(
    body: dict[str, Any], words: str, retriever: SearchServer, server: Server, tmp_path: Path
) -> None:
    with template(server, body):
        with pytest.raises(UserError, match=words):
            open_index(retriever, tmp_path)
        assert call(retriever, "GET", f"/{retriever.prefix}-*") == {}
    assert open_index(retriever, tmp_path).num_documents == 300


@needs_templates
def test_a_red_index_of_somebody_else_is_ignored(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    with as_admin(server) as client:
        settings = {"settings": {"index": {"routing.allocation.require.box": "hot"}}}
        client.call("PUT", "/red?wait_for_active_shards=0", settings)
        try:
            assert open_index(retriever, tmp_path).num_documents == 300
        finally:
            client.call("DELETE", "/red")


@needs_templates
def test_blocks_and_limits_are_reported_as_such(retriever: SearchServer, server: Server, tmp_path: Path) -> None:
    settings = {"cluster.blocks.read_only": True}, {"cluster.max_shards_per_node": 1}
    for setting, words in zip(settings, ("cluster_block_exception", "maximum"), strict=True):
        with as_admin(server) as client:
            if "cluster.max_shards_per_node" in setting:
                client.call("PUT", "/dsrl-test-filler")
            client.call("PUT", "/_cluster/settings", {"persistent": setting})
            try:
                with pytest.raises(UserError, match=words) as refusal:
                    open_index(retriever, tmp_path)
            finally:
                client.call("PUT", "/_cluster/settings", {"persistent": dict.fromkeys(setting)})
        assert "privilege" not in str(refusal.value)
    with as_admin(server) as client:
        client.call("DELETE", "/dsrl-test-filler")


def grant(monkeypatch: pytest.MonkeyPatch, made: SearchServer, **values: str) -> SearchServer:
    """The retriever with these credentials only."""
    for name, value in values.items():
        monkeypatch.setenv(f"GRANTED_{name.upper()}", value)
    names = ("api_key", "username", "password")
    return replace(made, **{f"{name}_env": f"GRANTED_{name.upper()}" for name in names})


def test_accounts_and_api_keys(secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = secure.api_key()
    with prepared(secure, tmp_path) as made:
        with monkeypatch.context() as granted:
            reader = grant(granted, made, username="reader", password="reader-password")
            with pytest.raises(UserError, match="create_index") as refusal:
                open_index(reader, tmp_path)
            assert name_of(made).index in str(refusal.value)
        for form in (key["encoded"], f"{key['id']}:{key['api_key']}"):
            with monkeypatch.context() as granted:
                assert open_index(grant(granted, made, api_key=form), tmp_path).num_documents == 300
        with monkeypatch.context() as granted:
            reader = grant(granted, made, username="reader", password="reader-password")
            assert open_index(reader, tmp_path).num_documents == 300
        for wrong in ({"api_key": "d3Jvbmc6a2V5"}, {"username": "writer", "password": "wrong-password"}, {}):
            with monkeypatch.context() as granted:
                with pytest.raises(UserError, match="export GRANTED_API_KEY") as refusal:
                    open_index(grant(granted, made, **wrong), tmp_path)
                assert "wrong-password" not in str(refusal.value)
        with monkeypatch.context() as granted:
            other = replace(grant(granted, made, api_key=key["encoded"]), prefix="mine")
            with pytest.raises(UserError, match=r"mine-.*(.|\n)*privilege"):
                open_index(other, tmp_path)
        with monkeypatch.context() as granted, pytest.raises(UserError, match="privilege"):
            open_index(grant(granted, made, username="nobody", password="nobody-password"), tmp_path)


def test_certificates_are_verified(secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    with prepared(secure, tmp_path) as made:
        unverified = replace(made, ca_file_env="OTHER_CA", ca_fingerprint_env="OTHER_FINGERPRINT")
        with pytest.raises(UserError, match="export OTHER_CA="):
            open_index(unverified, tmp_path)
        pem = ssl.get_server_certificate(("localhost", secure.port))
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
        monkeypatch.setenv("OTHER_FINGERPRINT", ":".join(fingerprint[at : at + 2] for at in range(0, 64, 2)))
        assert open_index(unverified, tmp_path).num_documents == 300
        monkeypatch.setenv("OTHER_FINGERPRINT", "0" * 64)
        with pytest.raises(UserError, match="fingerprint"):
            open_index(unverified, tmp_path)


@pytest.mark.parametrize("kind", ["elasticsearch", "opensearch"])
def test_a_killed_server_is_waited_for(kind: str, tmp_path: Path) -> None:
    with search_servers.running(kind, tmp_path / "server") as server, prepared(server, tmp_path) as small:
        made = replace(small, corpora=(write(tmp_path, "large", range(20_000)),), request_bytes=20_000, patience=180.0)
        output = io.StringIO()
        with ThreadPoolExecutor(1) as pool:
            report = pool.submit(made.index, tmp_path / "index", Progress(output))
            while not exists(made, f"/{name_of(made).index}"):
                time.sleep(0.05)
            time.sleep(0.5)
            server.stop(signal.SIGKILL)
            time.sleep(5)
            server.start()
            assert report.result(300).pieces == 20_000
        assert document_counts(made) == {"count": 20_000, "deleted": 0}
        assert "answers again" in output.getvalue()
        found = open_index(made, tmp_path)
        expected = found.search("amber", 20)
        server.stop(signal.SIGKILL)
        with ThreadPoolExecutor(1) as pool:
            hits = pool.submit(found.search, "amber", 20)
            time.sleep(2)
            server.start()
            assert hits.result(300) == expected


def test_a_run_finds_the_same_on_both_products(tmp_path: Path, cache: Path) -> None:
    runs = []
    for product in ("elasticsearch", "opensearch"):
        with search_servers.running(product, tmp_path / product) as server:
            where = Place(tmp_path / f"run-{product}", cache)
            where.folder.mkdir()
            run = where.run(*SMALL, f"retriever={product}", f"retriever.url={server.url}", "stop_after=generate")
            passages = sorted(where.store.rglob("passages.parquet"))
            runs.append((run["keys"], [path.read_bytes() for path in passages]))
        shutil.rmtree(tmp_path / product)
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] == runs[1][1]
    assert runs[0][1]
