"""Compare search engines on synthetic passages: dsrl's embedded index, Elasticsearch, bm25s and rank_bm25.

    python benchmarks/retrieval.py [--part engines gz large] [--count 100000 500000] [--engines ...]
        [--data FOLDER] [--venvs FOLDER] [--elasticsearch URL] [--out FILE.json] [--tiny]

engines  build, size, memory, reopening, latency, throughput and agreement at each count; how long the 500 passages of
         a first and of a further domain take
gz       how fast a compressed corpus is indexed, beside tantivy fed from memory
large    two million passages in the embedded index

Passages come from passages.py and are kept under `--data`. bm25s and rank_bm25 are installed by pip under `--venvs`,
each in an environment of its own. Without `--elasticsearch`, one is started by `tests/e2e/search_servers.py`; its
memory is counted apart. Every step runs in a process of its own, one after the other. Prints Markdown.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

HERE = Path(__file__).resolve().parent
VENVS = {"bm25s": ["bm25s==0.3.16", "numba", "PyStemmer"], "rank_bm25": ["rank-bm25==0.2.2"]}
ENGINES = ("embedded", "elasticsearch", "bm25s", "rank_bm25")
QUERIES = {"rank_bm25": 20}
"""Fewer for the slow one."""
MOST, LARGE, SMALL = 300, 2_000_000, 5_000
SLOWEST, PRIVATE_MB, INGEST = 50.0, 300.0, 0.6
FIRST_DOMAIN, FURTHER_DOMAIN = 5, 1000
"""Required speed-up of dsrl over rank_bm25."""

Row = dict[str, Any]


class Skipped(Exception):
    """An engine can't be measured here; the message says why."""


class Bench:
    """Runs all measurements on this machine."""

    def __init__(self, given: argparse.Namespace, folder: Path, server: "Server") -> None:
        self.given, self.folder, self.server = given, folder, server
        self.rows: list[Row] = []
        self.notes: list[str] = []

    def engines(self) -> Iterator[str]:
        """All engines at all counts."""
        for count in self.given.count:
            rows = [row for engine in self.given.engines if (row := self.measured(engine, count))]
            yield table(f"{count:,} passages", ENGINE_HEAD, [engine_cells(row) for row in rows])
            yield table(f"500 passages for a domain, of {count:,}", DOMAIN_HEAD, domain_cells(rows))
            yield table(f"agreement of the top ten, of {count:,}", ["pair", "queries", "overlap"], self.overlaps(rows))

    def measured(self, engine: str, count: int) -> Row | None:
        """Build the index and run the queries. None, with a note, if that isn't possible."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        passages, most = self.passages(count), QUERIES.get(engine, MOST)
        row: Row = {"engine": engine, "count": count, "folder": str(folder)}
        try:
            if engine != "rank_bm25":
                row |= {f"build_{key}" if key.endswith("mb") or key == "cpu_s" else key: value
                        for key, value in self.step(engine, "build", passages, folder).items()}  # fmt: skip
            row |= self.step(engine, "ask", passages, folder, "--queries", str(self.queries()), "--most", str(most))
        except Skipped as reason:
            self.note(f"{engine} at {count:,} was skipped: {reason}")
            return None
        if engine == "elasticsearch":
            row["server_mb"] = self.server.peak()
            self.server.empty()
        self.rows.append(row)
        return row

    def step(self, engine: str, step: str, passages: Path, folder: Path, *more: str) -> Row:
        """The JSON result of a child process."""
        address = ["--url", self.server.address()] if engine == "elasticsearch" else []
        command = [self.interpreter(engine), str(HERE / "engines.py"), engine, step, str(passages), str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run([*command, *more, *address], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skipped(f"{step} failed: {done.stderr.strip()[-400:] or f'status {done.returncode}'}")
        told: Row = json.loads(done.stdout.splitlines()[-1])
        print(f"{engine} {step}: {json.dumps(told)}", file=sys.stderr, flush=True)
        return told

    def interpreter(self, engine: str) -> str:
        """Interpreter of an environment with this engine, created if needed."""
        if engine not in VENVS:
            return sys.executable
        if self.given.venvs is None:
            raise Skipped("it needs --venvs")
        home = self.given.venvs.absolute() / engine
        if not (home / "installed").is_file():
            run(sys.executable, "-m", "venv", "--clear", str(home))
            run(str(home / "bin/python"), "-m", "pip", "install", "--quiet", *VENVS[engine])
            (home / "installed").touch()
        return str(home / "bin/python")

    def overlaps(self, rows: Sequence[Row]) -> list[list[str]]:
        hits = {
            row["engine"]: json.loads((Path(row["folder"]) / f"hits-{row['engine']}.json").read_text()) for row in rows
        }
        made = []
        for one, other in itertools.combinations(hits, 2):
            both = hits[one].keys() & hits[other].keys()
            shares = [share for query in both if (share := agreement(hits[one][query], hits[other][query])) is not None]
            if shares:
                made.append([f"{one} - {other}", str(len(shares)), f"{sum(shares) / len(shares):.3f}"])
        return made

    def gz(self) -> Iterator[str]:
        """Rates of indexing."""
        count = self.given.count[0]
        passages, rates = self.passages(count, ".gz"), {}
        for name, engine in (("dsrl, from .gz", "embedded"), ("tantivy, from memory", "memory")):
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            told = self.step(engine, "build", passages, folder)
            self.rows.append({"engine": engine, "part": "gz", "count": count, **told})
            rates[name] = count / told["build_s"]
        share = rates["dsrl, from .gz"] / rates["tantivy, from memory"]
        cells = [[name, f"{rate:,.0f}"] for name, rate in rates.items()]
        yield table(f"indexing {count:,} passages", ["way", "passages/s"], cells)
        yield goal(f".gz is indexed at {100 * share:.0f} % of tantivy's rate from memory", share >= INGEST, "60 %")

    def large(self) -> Iterator[str]:
        """The embedded index of many passages."""
        count = SMALL if self.given.tiny else LARGE
        row = self.measured("embedded", count)
        if row:
            yield table(f"{count:,} passages", ENGINE_HEAD, [engine_cells(row)])
            most = max(row["build_private_mb"], row["private_mb"])
            yield goal(f"private memory {most:.0f} MB at {count:,}", most < PRIVATE_MB, f"{PRIVATE_MB:.0f} MB")

    def passages(self, count: int, suffix: str = "") -> Path:
        return self.data(f"passages-{count}.jsonl{suffix}", str(count))

    def queries(self) -> Path:
        return self.data("queries.txt", str(MOST), "--queries")

    def data(self, name: str, count: str, *option: str) -> Path:
        """A file of passages.py, made once."""
        path: Path = self.given.data / name
        if not path.is_file():
            begun = path.with_name(f"making-{name}")
            run(sys.executable, str(HERE / "passages.py"), count, str(begun), *option)
            begun.rename(path)
        return path

    def goals(self) -> Iterator[str]:
        """Compare the results with the targets."""
        for count in self.given.count:
            rows = {row["engine"]: row for row in self.rows if row["count"] == count and "part" not in row}
            if ours := rows.get("embedded"):
                most = max(ours["build_private_mb"], ours["private_mb"])
                yield goal(f"p95 {ours['p95_ms']:.1f} ms at {count:,}", ours["p95_ms"] <= SLOWEST, f"{SLOWEST:.0f} ms")
                yield goal(f"private memory {most:.0f} MB at {count:,}", most < PRIVATE_MB, f"{PRIVATE_MB:.0f} MB")
            if ours and (theirs := rows.get("rank_bm25")):
                processor = theirs["reopen_cpu_s"] / ours["build_cpu_s"]
                yield f"- processor time of rank_bm25 for its index, as a multiple of ours: {processor:.2f}"
                faster = first_domain(theirs) / first_domain(ours), further_domain(theirs) / further_domain(ours)
                yield goal(f"first domain {faster[0]:.1f} times faster", faster[0] >= FIRST_DOMAIN, f"{FIRST_DOMAIN}")
                yield goal(f"further ones {faster[1]:,.0f} times", faster[1] >= FURTHER_DOMAIN, f"{FURTHER_DOMAIN:,}")

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"note: {text}", flush=True)


class Server:
    """Elasticsearch: the given server, or one of the tests, started on first use."""

    def __init__(self, given: str | None, folder: Path) -> None:
        self.url, self.folder = given or "", folder
        self.started: Any = None

    def address(self) -> str:
        if not self.url:
            sys.path.append(str(HERE.parent))
            from tests.e2e import search_servers

            if not os.environ.get(search_servers.FOLDER):
                raise Skipped(search_servers.HOW_TO_START)
            url = f"http://localhost:{search_servers.free_port()}"
            self.started = search_servers.Server("elasticsearch", url, folder=self.folder / "elasticsearch")
            self.started.start()
            self.url = url
        return self.url

    def peak(self) -> float | None:
        """Memory of the server in MB; None for a given server."""
        if self.started is None:
            return None
        lines = Path(f"/proc/{self.started.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:"))

    def empty(self) -> None:
        """Delete the measured indexes."""
        from dsrl.stages.retrieve.search_server.access import Access
        from dsrl.stages.retrieve.search_server.client import SearchClient

        with SearchClient(Access(url=self.url)) as client:
            for name in client.call("GET", "/dsrl-benchmark-*"):
                client.call("DELETE", f"/{name}")

    def stop(self) -> None:
        if self.started is not None:
            self.started.stop()


def agreement(one: list[Any], other: list[Any]) -> float | None:
    """Share of the first ten hits that are in the other's first ten, counting ties with its last hit. None if both are
    empty."""
    if not one and not other:
        return None
    last = other[:10][-1][1] * (1 - 1e-5) if other else 0.0
    top = {identifier for identifier, score in other if score >= last}
    return sum(identifier in top for identifier, _ in one[:10]) / max(len(one[:10]), len(other[:10]))


def found_by(row: Row) -> dict[str, list[Any]]:
    """Hits of each query."""
    text = (Path(row["folder"]) / f"hits-{row['engine']}.json").read_text(encoding="utf-8")
    found: dict[str, list[Any]] = json.loads(text)
    return found


def first_domain(row: Row) -> float:
    """Seconds for 500 passages, including building the index."""
    return float(row.get("build_s", 0.0) + row["reopen_s"] + row["domain_s"])


def further_domain(row: Row) -> float:
    """Seconds for the passages of a further domain. rank_bm25 has no stored index and rebuilds it for every domain."""
    return float(row["domain_s"] + (row["reopen_s"] if row["engine"] == "rank_bm25" else 0.0))


ENGINE_HEAD = ["engine", "build s", "build CPU s", "index MB", "build: private / RSS MB", "reopen s", "first ms",
               "p50 / p95 ms", "batch q/s", "asked: private MB", "server MB"]  # fmt: skip
DOMAIN_HEAD = ["engine", "first domain s", "further domain s", "times rank_bm25: first", "further"]


def engine_cells(row: Row) -> list[str]:
    built = "build_s" in row
    return [
        row["engine"],
        f"{row['build_s']:.1f}" if built else "at every start",
        f"{row['build_cpu_s'] if built else row['reopen_cpu_s']:.1f}",
        f"{row['index_bytes'] / 1e6:.1f}" if built else "none",
        f"{row['build_private_mb']:.0f} / {row['build_peak_rss_mb']:.0f}" if built else f"{row['private_mb']:.0f}",
        f"{row['reopen_s']:.3f}",
        f"{row['first_ms']:.1f}",
        f"{row['p50_ms']:.2f} / {row['p95_ms']:.2f}",
        f"{row['batch_per_s']:,.0f}",
        f"{row['private_mb']:.0f}",
        f"{row['server_mb']:.0f}" if row.get("server_mb") else "",
    ]


def domain_cells(rows: Sequence[Row]) -> list[list[str]]:
    slow = next((row for row in rows if row["engine"] == "rank_bm25"), None)
    made = []
    for row in rows:
        first, further = first_domain(row), further_domain(row)
        times = [f"{first_domain(slow) / first:.1f}", f"{further_domain(slow) / further:,.0f}"] if slow else ["", ""]
        made.append([row["engine"], f"{first:.2f}", f"{further:.4f}", *times])
    return made


def table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [f"### {title}", "", *(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])]
    return "\n".join(lines) + "\n"


def goal(words: str, reached: bool, wanted: str) -> str:
    return f"- {'reached' if reached else 'MISSED'}: {words} (goal {wanted})"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{Path(command[0]).name}: {done.stderr.strip()[-400:]}")


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{platform.system()}, {cores} cores, Python {platform.python_version()}, load {load:.1f} at the start"


@contextmanager
def workplace(data: Path | None) -> Iterator[Path]:
    """A temporary folder for indexes."""
    folder = Path(tempfile.mkdtemp(prefix="dsrl-retrieval-", dir=data))
    try:
        yield folder
    finally:
        rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=["engines", "gz", "large"], default=["engines", "gz", "large"])
    parser.add_argument("--count", nargs="+", type=int, default=[100_000, 500_000])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument(
        "--data", type=Path, help="folder that keeps passages and the server; without it a temporary one"
    )
    parser.add_argument("--venvs", type=Path, help="folder for the environments of bm25s and rank_bm25")
    parser.add_argument("--elasticsearch", help="address of a server; its indexes dsrl-benchmark-* are deleted")
    parser.add_argument("--out", type=Path, help="JSON file for all measurements")
    parser.add_argument("--tiny", action="store_true", help=f"{SMALL:,} passages, only to see that everything runs")
    given = parser.parse_args()
    given.count = [SMALL] if given.tiny else given.count
    if given.data:
        given.data.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}\n", flush=True)
    with workplace(given.data) as folder:
        given.data = given.data or folder
        server = Server(given.elasticsearch, given.data)
        bench, told = Bench(given, folder, server), []
        try:
            for part in given.part:
                for text in getattr(bench, part)():
                    told.append(text)
                    print(text, flush=True)
            told += list(bench.goals())
            print("\n".join(bench.goals()))
        finally:
            server.stop()
    if given.out:
        rows = [{key: value for key, value in row.items() if key != "folder"} for row in bench.rows]
        values = {"machine": machine(), "rows": rows, "told": told, "notes": bench.notes}
        given.out.write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
