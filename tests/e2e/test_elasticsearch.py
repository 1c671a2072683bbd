"""`retriever=elasticsearch` against a real server. Faults, accounts and TLS come from a proxy in front of it.

The server is the one in `elasticsearch/`, or the one at `DSRL_TEST_ELASTICSEARCH_URL` (with an API key in
`DSRL_TEST_ELASTICSEARCH_API_KEY`), where indexes named `dsrl-test-*` are created and deleted.
"""

import datetime
import io
import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import Elasticsearch, Embedded
from dsrl.stages.retrieve.corpus import find_corpus
from dsrl.stages.retrieve.elastic import mapping, searcher
from dsrl.stages.retrieve.elastic.connection import Connection
from tests.command import ENVIRONMENT
from tests.e2e.elasticsearch.engine import NotPrepared, prepare, started
from tests.e2e.elasticsearch.proxy import Ask, Proxy, Reply, Request, proxied
from tests.e2e.runs import SMALL, Place

pytestmark = pytest.mark.e2e
KEY = "DSRL_TEST_ELASTICSEARCH_API_KEY"
WORDS = "amber birch cedar delta ember fjord grove heron inlet juniper kelp lagoon".split()  # noqa: SIM905
WEIRD = ['C++ "unbalanced', "text:(foo OR", "*", "", "  ", "\u6f22\u5b57" * 5000, "x" * 10_000, "\U0001f600" * 3000]
WEIRD += ["\x00 \ud800", "a AND NOT b~2^3 [x TO y] /r/", " ".join(f"w{number}" for number in range(5000))]
WEIRD += ["amber " * 4000]


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real server."""
    given = os.environ.get("DSRL_TEST_ELASTICSEARCH_URL")
    if given:
        yield given
        return
    try:
        folder = prepare(request.config.cache.mkdir("elasticsearch"))
        with started(folder, tmp_path_factory.mktemp("elasticsearch")) as url:
            yield url
    except NotPrepared as reason:
        pytest.skip(str(reason))


@pytest.fixture
def described(server: str, tmp_path: Path) -> Iterator[Elasticsearch]:
    """A retriever with 300 short passages under its own prefix, deleted at the end."""
    prefix = f"dsrl-test-{uuid.uuid4().hex[:12]}"
    made = Elasticsearch(
        corpora=(write(tmp_path, "one", range(300)),), url=server, prefix=prefix, api_key_env=KEY,
        concurrency=2, retries=3, request_bytes=2000,
    )  # fmt: skip
    yield made
    with Connection(made) as connection:
        found = connection.run(connection.client.indices.get(index=f"{prefix}-*"))
        for name in found:
            connection.run(connection.client.indices.delete(index=name))


def write(folder: Path, name: str, numbers: range, more: str = "") -> str:
    """Write a corpus of passages that share words in many combinations, so that scores often tie."""
    path = folder / f"{name}.jsonl"
    texts = (
        " ".join(WORDS[number // step % len(WORDS)] for step in (1, 3, 7)) + f" {name}{more}" for number in numbers
    )
    rows = (
        json.dumps({"id": str(number), "text": f"{number} {text}"}) for number, text in zip(numbers, texts, strict=True)
    )
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def opened(made: Elasticsearch, folder: Path) -> Any:
    return made.open(folder / "index", Progress())


def sources(made: Elasticsearch, folder: Path, query: str = "amber", limit: int = 1000) -> list[str]:
    searcher = opened(made, folder)
    try:
        return [hit.source for hit in searcher.search(query, limit)]
    finally:
        searcher.close()


def asked(made: Elasticsearch, work: Callable[[Any], Any]) -> Any:
    """The result of one client call."""
    with Connection(made) as connection:
        return connection.run(work(connection.client))


def place(made: Elasticsearch) -> mapping.Place:
    found: mapping.Place = made._places(made._found())[-1]
    return found


def through(made: Elasticsearch, proxy: Proxy, **changes: Any) -> Elasticsearch:
    return replace(made, url=proxy.url, **changes)


def test_passages_are_found_with_their_offsets(described: Elasticsearch, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    text = "Herons stand still. " * 150 + "A kestrel hovers over the field."
    long.write_text(json.dumps({"id": "x", "text": text}) + "\n")
    made = replace(described, corpora=(str(long), *described.corpora))
    report = made.index(tmp_path / "index", Progress())
    assert (report.read, report.kept, report.pieces) == (301, 301, 302)
    assert made.index(tmp_path / "index", Progress()).pieces == 302
    searcher = opened(made, tmp_path)
    assert searcher.num_documents == 302
    (hit,) = searcher.search("kestrels", 10)
    assert hit.source == "long/x"
    assert text[hit.offset :] == hit.text
    assert searcher.search("kestrels", 0) == []
    searcher.close()


def test_ties_are_in_passage_order_and_longer_lists_extend_shorter_ones(
    described: Elasticsearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(described, tmp_path)
    whole = found.search("amber cedar", 1000)
    assert len(whole) > 100
    assert whole == sorted(whole, key=lambda hit: (-hit.score, int(hit.source.partition("/")[2])))
    monkeypatch.setattr(searcher, "LONGEST_PAGE", 7)
    monkeypatch.setattr(searcher, "HITS_PER_REQUEST", 20)
    for limit in (1, 7, 8, 50, 1000):
        assert found.search("amber cedar", limit) == whole[:limit]
    queries = [*WORDS, "", "nothing of the kind", "amber cedar"]
    assert found.search_many(queries, 30) == [found.search(query, 30) for query in queries]
    found.close()


def test_any_text_is_a_query(described: Elasticsearch, tmp_path: Path) -> None:
    found = opened(described, tmp_path)
    hits = found.search_many(WEIRD, 5)
    assert [len(few) for few in hits[:5]] == [0, 0, 0, 0, 0]
    assert len(hits[-1]) == 5
    found.close()


@pytest.mark.parametrize("corpus", ["synthetic", "everyday", "pubmedqa"])
def test_the_embedded_index_ranks_alike(corpus: str, described: Elasticsearch, tmp_path: Path) -> None:
    path, queries = shared(corpus, tmp_path)
    made = replace(described, corpora=(path,), request_bytes=1_000_000)
    here, there = Embedded(corpora=(path,)).open(tmp_path / "embedded", Progress()), opened(made, tmp_path)
    pairs = zip(here.search_many(queries, 50), there.search_many(queries, 50), strict=True)
    shares = [agreement(*pair) for pair in pairs if any(pair)]
    there.close()
    assert len(shares) > 20
    assert sum(shares) / len(shares) >= 0.95


def shared(corpus: str, folder: Path) -> tuple[str, list[str]]:
    """A corpus that both index, and queries."""
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
    """Share of the first ten hits that are in the other's first ten, counting ties with its last hit."""
    last = other[:10][-1].score * (1 - 1e-5) if other else 0.0
    top = {(hit.source, hit.offset) for hit in other if hit.score >= last}
    return sum((hit.source, hit.offset) in top for hit in one[:10]) / max(len(one[:10]), len(other[:10]))


def test_adding_a_corpus_indexes_only_that_one(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    second = write(tmp_path, "two", range(290, 330), " birch")
    with proxied(server) as proxy:
        first = through(described, proxy)
        first.index(tmp_path / "index", Progress())
        sent = len(proxy.asked("_bulk"))
        both = replace(first, corpora=(*first.corpora, second))
        hits = sources(both, tmp_path, "birch")
        later = b"".join(request.body for request in proxy.asked("_bulk")[sent:])
        assert later.count(b'"create"') == 40
        assert {source.partition("/")[0] for source in hits} == {"one", "two"}
        assert len(proxy.asked("_bulk")) > sent
    together = replace(both, url=server, prefix=f"{described.prefix}-again")
    together.index(tmp_path / "index", Progress())
    assert sources(together, tmp_path, "birch") == hits


def test_word_weights_cover_all_corpora(described: Elasticsearch, tmp_path: Path) -> None:
    corpora = (*described.corpora, write(tmp_path, "two", range(0, 300, 9), " birch cedar cedar"))
    there = opened(replace(described, corpora=corpora), tmp_path)
    here = Embedded(corpora=corpora).open(tmp_path / "embedded", Progress())
    one, other = (searcher.search("cedar birch two", 20) for searcher in (there, here))
    there.close()
    assert [hit.source for hit in one] == [hit.source for hit in other]
    assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], rel=1e-4)


def test_a_killed_run_leaves_no_index_and_the_next_one_resumes(
    described: Elasticsearch, server: str, tmp_path: Path
) -> None:
    third = threading.Event()

    def hold(request: Request, ask: Ask) -> Reply:
        if "_bulk" in request.path and len(proxy.asked("_bulk")) > 3:
            third.set()
            time.sleep(1)
        return ask(request)

    with proxied(server) as proxy:
        proxy.rule = hold
        script = f"""
from pathlib import Path
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import Elasticsearch
Elasticsearch(corpora={described.corpora!r}, url={proxy.url!r}, prefix={described.prefix!r}, api_key_env={KEY!r},
    request_bytes=2000, concurrency=1).index(Path({str(tmp_path / "index")!r}), Progress())
"""
        child = subprocess.Popen([sys.executable, "-c", script], env={**ENVIRONMENT, KEY: os.environ.get(KEY, "")})
        assert third.wait(60)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not asked(described, lambda client: client.indices.exists_alias(name=place(described).alias))
        time.sleep(1.2)
    assert len(sources(described, tmp_path)) == len(
        sources(replace(described, prefix=f"{described.prefix}-b"), tmp_path)
    )
    found = asked(described, lambda client: client.indices.stats(index=place(described).index))
    assert found["_all"]["primaries"]["docs"] == {"count": 300, "deleted": 0}


def test_simultaneous_runs_fill_one_index(described: Elasticsearch, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda number: described.index(tmp_path / str(number), Progress()), range(3)))
    assert {report.pieces for report in reports} == {300}
    found = asked(described, lambda client: client.indices.stats(index=place(described).index))
    assert found["_all"]["primaries"]["docs"] == {"count": 300, "deleted": 0}


def overloaded(times: int) -> Callable[[Request, Ask], Reply]:
    """Refuse the first `times` bulk requests, and half of the passages of the next ones."""
    lock, seen = threading.Lock(), [0]

    def rule(request: Request, ask: Ask) -> Reply:
        if "_bulk" not in request.path:
            return ask(request)
        with lock:
            seen[0] += 1
            number = seen[0]
        if number <= times:
            return Reply(
                429, b'{"error": {"type": "es_rejected_execution_exception", "reason": "full"}, "status": 429}'
            )
        return half(ask(request)) if number <= 3 * times else ask(request)

    return rule


def half(reply: Reply) -> Reply:
    """Report every second passage as refused."""
    body = json.loads(reply.body)
    for item in body["items"][::2]:
        rejected = {"type": "es_rejected_execution_exception", "reason": "full"}
        item["create"] = {"_index": "i", "_id": item["create"]["_id"], "status": 429, "error": rejected}
    return replace(reply, body=json.dumps({**body, "errors": True}).encode())


def test_refused_passages_are_retried(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    with proxied(server, overloaded(2)) as proxy:
        report = through(described, proxy).index(tmp_path / "index", Progress())
    assert report.pieces == 300
    assert opened(described, tmp_path).num_documents == 300


def test_a_server_that_stays_overloaded_ends_the_run(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    with proxied(server, overloaded(10**9)) as proxy:
        with pytest.raises(StageFailed, match="overloaded"):
            through(described, proxy, retries=1).open(tmp_path / "index", Progress())
        assert not asked(described, lambda client: client.indices.exists_alias(name=place(described).alias))
    assert opened(described, tmp_path).num_documents == 300


def test_refused_searches_are_retried(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    faults = [
        {"error": {"type": "es_rejected_execution_exception", "reason": "full"}, "status": 429},
        {"timed_out": True, "_shards": {"failed": 0}, "hits": {"hits": []}},
        {"timed_out": False, "_shards": {"failed": 1}, "hits": {"hits": []}},
    ]

    def rule(request: Request, ask: Ask) -> Reply:
        reply = ask(request)
        if "_msearch" not in request.path or not faults:
            return reply
        body = json.loads(reply.body)
        body["responses"][0] = faults.pop()
        return replace(reply, body=json.dumps(body).encode())

    described.index(tmp_path / "index", Progress())
    expected = opened(described, tmp_path).search_many(WORDS, 5)
    with proxied(server, rule) as proxy:
        assert opened(through(described, proxy), tmp_path).search_many(WORDS, 5) == expected
        assert faults == []
        faults += [{"timed_out": True, "_shards": {"failed": 0}, "hits": {"hits": []}}] * 9
        with pytest.raises(StageFailed, match="overloaded or broken"):
            opened(through(described, proxy, retries=1), tmp_path).search("amber", 5)


@pytest.mark.parametrize("given", ["key", "account", "wrong", "none", "weak"])
def test_accounts(
    given: str, described: Elasticsearch, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"ApiKey right-key", f"Basic {b64encode(b'me:right').decode()}", "ApiKey weak-key"}

    def rule(request: Request, ask: Ask) -> Reply:
        if request.headers.get("authorization") not in good:
            return Reply(401, b'{"error": {"type": "security_exception", "reason": "unable to authenticate"}}')
        if "weak" in request.headers["authorization"] and request.method == "PUT":
            return Reply(403, b'{"error": {"type": "security_exception", "reason": "action is unauthorized"}}')
        return ask(replace(request, headers={**request.headers, "authorization": f"ApiKey {os.environ.get(KEY, '')}"}))

    variables = {
        "key": {"OURS_KEY": "right-key"}, "account": {"OURS_NAME": "me", "OURS_PASSWORD": "right"},
        "wrong": {"OURS_KEY": "wrong-key"}, "none": {}, "weak": {"OURS_KEY": "weak-key"},
    }[given]  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with proxied(server, rule) as proxy:
        names = {"api_key_env": "OURS_KEY", "username_env": "OURS_NAME", "password_env": "OURS_PASSWORD"}
        made = through(described, proxy, **names)
        if given in ("key", "account"):
            assert opened(made, tmp_path).num_documents == 300
            return
        with pytest.raises(UserError, match="denies" if given == "weak" else "doesn't know who asks") as refusal:
            opened(made, tmp_path)
    assert "-key" not in str(refusal.value)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for the loopback address and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dsrl test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "server.pem"
    path.write_bytes(private + made.public_bytes(pem))
    (tmp_path / "ca.pem").write_bytes(made.public_bytes(pem))
    return path


def test_certificates_are_verified(
    described: Elasticsearch, server: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(server, certificate=certificate) as proxy:
        made = through(described, proxy, ca_file_env="OURS_CA")
        with pytest.raises(UserError, match="export OURS_CA="):
            opened(made, tmp_path)
        monkeypatch.setenv("OURS_CA", str(tmp_path / "ca.pem"))
        assert opened(made, tmp_path).num_documents == 300


def test_a_red_cluster_is_refused(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    def red(request: Request, ask: Ask) -> Reply:
        if "_cluster/health" not in request.path:
            return ask(request)
        return Reply(408, b'{"status": "red", "timed_out": true, "unassigned_shards": 3}')

    with proxied(server, red) as proxy, pytest.raises(StageFailed, match="it is red") as refusal:
        opened(through(described, proxy), tmp_path)
    assert "3 shards" in str(refusal.value)


def test_a_server_that_is_not_elasticsearch_is_refused(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    def nameless(request: Request, ask: Ask) -> Reply:
        reply = ask(request)
        return replace(reply, headers={"Content-Type": "application/json"})

    with proxied(server, nameless) as proxy, pytest.raises(UserError, match="is not an Elasticsearch"):
        opened(through(described, proxy), tmp_path)


def test_a_request_over_the_limit_of_the_server(described: Elasticsearch, server: str, tmp_path: Path) -> None:
    def narrow(request: Request, ask: Ask) -> Reply:
        return (
            Reply(413, b"<html>too large</html>", {"Content-Type": "text/html"})
            if len(request.body) > 4000
            else ask(request)
        )

    with proxied(server, narrow) as proxy:
        with pytest.raises(UserError, match="request_bytes") as refusal:
            opened(through(described, proxy, request_bytes=100_000), tmp_path)
        assert "passage: number" in str(refusal.value)
        assert opened(through(described, proxy, request_bytes=2000), tmp_path).num_documents == 300


@pytest.mark.parametrize("whole", [False, True])
def test_an_index_with_other_fields_is_refused(whole: bool, described: Elasticsearch, tmp_path: Path) -> None:
    fields = {"properties": {"text": {"type": "keyword"}}}
    aliases = {place(described).alias: {}} if whole else None
    asked(
        described,
        lambda client: client.indices.create(index=place(described).index, mappings=fields, aliases=aliases),
    )
    with pytest.raises(UserError, match="other fields"):
        opened(described, tmp_path)


def test_an_index_of_another_version_is_left_alone(described: Elasticsearch, tmp_path: Path) -> None:
    older = place(described).alias.removesuffix(f"-v{mapping.VERSION}") + "-v0"
    asked(described, lambda client: client.indices.create(index=f"{older}-passages", aliases={older: {}}))
    said = io.StringIO()
    report = described.index(tmp_path / "index", Progress(said))
    assert report.pieces == 300
    assert "another version" in said.getvalue()


def test_a_changed_index_is_refused(described: Elasticsearch, tmp_path: Path) -> None:
    described.index(tmp_path / "index", Progress())
    asked(described, lambda client: client.delete(index=place(described).index, id="7", refresh=True))
    with pytest.raises(UserError, match="was changed") as refusal:
        opened(described, tmp_path)
    assert "299 passages" in str(refusal.value)


def test_an_index_deleted_during_searches(described: Elasticsearch, tmp_path: Path) -> None:
    found = opened(described, tmp_path)
    asked(described, lambda client: client.indices.delete(index=place(described).index))
    with pytest.raises(UserError, match="index_not_found"):
        found.search("amber", 5)
    assert opened(described, tmp_path).num_documents == 300


def test_a_run_retrieves_its_passages_from_the_server(server: str, tmp_path: Path, cache: Path) -> None:
    prefix = f"dsrl-test-{uuid.uuid4().hex[:12]}"
    where = Place(tmp_path, cache)
    retriever = {"url": server, "prefix": prefix, "api_key_env": KEY}
    choice = ("retriever=elasticsearch", *(f"retriever.{name}={value}" for name, value in retriever.items()))
    run = where.run(*SMALL, *choice, "stop_after=retrieve", **{KEY: os.environ.get(KEY, "")})
    assert run["keys"]["retrieve"]
    made = Elasticsearch(corpora=("everyday",), url=server, prefix=prefix, api_key_env=KEY)
    names = asked(made, lambda client: client.indices.get(index=f"{prefix}-*"))
    assert len(names) == 1
    asked(made, lambda client: client.indices.delete(index=",".join(names)))


def test_the_local_server_is_version_7_0(server: str) -> None:
    if os.environ.get("DSRL_TEST_ELASTICSEARCH_URL"):
        return
    with urllib.request.urlopen(server) as reply:
        assert json.load(reply)["version"]["number"] == "7.0.0"
