"""The teacher client against a fault server, compared with other tools.

    python benchmarks/teacher.py [--part a b c d] [--venvs FOLDER] [--out FILE.json]

a  the real `generate` stage with 16 votes per sample under log-normal latency: wall time over the ideal
b  requests per second including the cache, memory at 100,000 requests, a storm of 429s, recovery after an outage
c  the same work with NVIDIA DataDesigner, Bespoke Curator and distilabel, and what they pay again after a crash
d  savings of stopping votes early, and share of equal labels

Other tools are installed by uv under `--venvs`, each in its own environment. A tool that can't be installed is skipped
with the reason. Prints Markdown.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from peers.runs import Outcome, Skipped, Started, interpreter, measure

from tests.support.faultserver import Faults, FaultServer, Outage, serve
from tests.support.faultserver.bench import bench
from tests.support.faultserver.serve import paid

CONCURRENCY = 128
LOG_NORMAL = {"answer": "sure", "latency": 0.4, "sigma": 0.8, "shortest": 0.05, "longest": 2.0}
"""Between 50 ms and 2 s, mean 0.53 s."""
STORM = {"answer": "sure", "latency": 0.2, "jitter": 0.1, "capacity": 20, "retry_after": 1.0}
PEERS = ("datadesigner", "curator", "distilabel")
LOSSES = ("rows lost", "rows missing")


@dataclass(frozen=True)
class Sizes:
    """Amount of work of each part."""

    stage: int = 18_000
    """Samples of part a: 36 sets of 500, about 150 s of ideal time."""
    chain: int = 500
    plain: int = 5_000
    many: int = 100_000
    storm: int = 1_000
    before: float = 10.0
    """Seconds before the outage."""
    outage: float = 60.0
    during: int = 4_000
    """Requests of the run with the outage."""
    votes: int = 500
    limit: float = 600.0
    """Timeout of a client in seconds."""
    restart: float = 60.0
    """Timeout of a client that resumes after a kill."""


TINY = Sizes(stage=6, chain=4, plain=20, many=30, storm=30, before=0.5, outage=0.5, during=150, votes=6, limit=60)
"""For a smoke test."""

Table = tuple[str, list[str], list[list[str]]]


class Bench:
    """Runs all parts against one server."""

    def __init__(
        self, server: FaultServer, folder: Path, sizes: Sizes, venvs: Path | None, peers: Iterable[str]
    ) -> None:
        self.server, self.folder, self.sizes, self.venvs = server, folder, sizes, venvs
        self.peers = tuple(peers)
        self.notes: list[str] = []
        self.outcomes: list[dict] = []
        self._runs = 0

    def run(
        self, client: str, work: str, count: int, faults: dict, *more: str, limit: float | None = None
    ) -> Outcome | None:
        """One measurement in a new folder. None, with a note, if it isn't possible."""
        self.server.set(**{**plain_faults(), **faults})
        self._runs += 1
        folder = self.folder / f"{self._runs}-{client}-{work}"
        limit = limit or self.sizes.limit
        try:
            outcome = measure(client, self.server, folder, work, count, *more, venvs=self.venvs, limit=limit)
        except Skipped as reason:
            self.note(f"{client} was skipped: {reason}")
            return None
        self.outcomes.append({"work": work, "count": count, **asdict(outcome)})
        if outcome.error:
            self.note(f"{client}, {work}: {outcome.error}")
        return outcome

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            print(f"note: {text}", flush=True)

    def a(self) -> Table:
        """Part a: the `generate` stage."""
        outcome = self.run("dsrl", "stage", self.sizes.stage, LOG_NORMAL)
        rows = [chain_row("dsrl, generate stage", outcome)] if outcome and outcome.seconds else []
        head = ["client", "samples", "requests", "ideal s", "wall s", "wall / ideal"]
        return (f"(a) invent, then 16 votes: log-normal 50 ms to 2 s, {CONCURRENCY} in flight", head, rows)

    def b(self) -> list[Table]:
        """Part b: speed, memory, storm, outage."""
        return [self.speed(), self.memory(), self.storm(("dsrl", "gather")), self.outage()]

    def speed(self) -> Table:
        rows = []
        for client in ("dsrl", "gather", "aiohttp"):
            outcome = self.run(client, "plain", self.sizes.plain, {"answer": "sure"})
            if outcome and outcome.seconds:
                rows.append(speed_row(outcome, self.sizes.plain))
        return (f"(b) {self.sizes.plain:,} requests at 0 ms", SPEED_HEAD, rows)

    def memory(self) -> Table:
        outcome = self.run("dsrl", "plain", self.sizes.many, {"answer": "sure"})
        rows = [speed_row(outcome, self.sizes.many)] if outcome and outcome.seconds else []
        return (f"(b) {self.sizes.many:,} requests at 0 ms", SPEED_HEAD, rows)

    def storm(self, clients: Iterable[str]) -> Table:
        rows = []
        for client in clients:
            outcome = self.run(client, "plain", self.sizes.storm, STORM)
            if outcome and outcome.seconds:
                ideal = outcome.stats["service_seconds"] / STORM["capacity"]
                lost = self.sizes.storm - outcome.rows
                rows.append([client, *ratio(outcome.seconds, ideal), str(outcome.throttled), str(lost)])
        title = (
            f"429 storm: {self.sizes.storm:,} requests of 200 ms, {CONCURRENCY} allowed, capacity {STORM['capacity']}"
        )
        return (title, ["client", "ideal s", "wall s", "wall / ideal", "429s", "rows lost"], rows)

    def outage(self) -> Table:
        sizes = self.sizes
        down = Outage(start=sizes.before, end=sizes.before + sizes.outage)
        faults = {"answer": "sure", "latency": 0.2, "outages": [down]}
        outcome = self.run("dsrl", "plain", sizes.during, faults, "--concurrency", "32")
        if not outcome or not outcome.seconds:
            return ("(b) outage", [], [])
        began = time.time() - self.server.stats()["age"]
        first, full = recovery(self.server.log(), began, down)
        row = ["dsrl", f"{first:.1f}", f"{full:.1f}", str(outcome.stats["requests"] - sizes.during),
               str(sizes.during - outcome.rows)]  # fmt: skip
        head = ["client", "s to the first reply", "s to 90 % of the rate before", "further requests", "rows lost"]
        return (f"(b) outage of {sizes.outage:g} s (connections refused)", head, [row])

    def c(self) -> list[Table]:
        """Part c: other tools."""
        clients = ("dsrl", "gather", *self.peers)
        tables = [self.chains(clients), self.speeds(clients), self.storm(clients), self.crashes(clients)]
        columns = ("wall / ideal", "requests/s", "wall / ideal", "429s", "of those answered 1 s before the kill")
        for table, column in zip([*tables[:3], tables[2], tables[3]], columns, strict=True):
            self.note(ranking(table, column))
        return tables

    def chains(self, clients: Iterable[str]) -> Table:
        rows = []
        for client in clients:
            outcome = self.run(client, "chain", self.sizes.chain, LOG_NORMAL)
            if outcome and outcome.seconds:
                rows.append([*chain_row(client, outcome), f"{outcome.process_seconds:.1f}"])
        head = ["client", "samples", "requests", "ideal s", "wall s", "wall / ideal", "process s"]
        return (f"(c) {self.sizes.chain} samples: invent, then n=16", head, rows)

    def speeds(self, clients: Iterable[str]) -> Table:
        rows = []
        for client in clients:
            outcome = self.run(client, "plain", self.sizes.plain, {"answer": "sure"})
            if outcome and outcome.seconds:
                rows.append(speed_row(outcome, self.sizes.plain))
        return (f"(c) {self.sizes.plain:,} requests at 0 ms", SPEED_HEAD, rows)

    def crashes(self, clients: Iterable[str]) -> Table:
        rows = []
        for client in clients:
            with suppress(Skipped):
                rows.append(self.crash(client, interpreter(client, self.venvs)))
        head = ["client", "requests answered", "asked again", "of those answered 1 s before the kill", "rows missing"]
        return ("(c) kill -9 at half of the work, then the same command again", head, rows)

    def crash(self, client: str, python: str) -> list[str]:
        """Kill the client at half of its requests and restart it; repeated requests were paid for twice."""
        self._runs += 1
        folder, count = self.folder / f"{self._runs}-{client}-crash", self.sizes.chain
        self.server.set(**{**plain_faults(), **LOG_NORMAL}, clear=True, restart=True)
        work = ("--work", "chain", "--count", str(count))
        started = Started(python, client, self.server, folder, *work)
        started.watch(self.sizes.limit, until=lambda: good(self.server.stats()) >= count)
        killed = time.time()
        started.kill()
        time.sleep(0.5)
        before = self.server.log()
        again = Started(python, client, self.server, folder, *work)
        finished = again.watch(self.sizes.restart)
        output = again.output() if finished else again.kill() or {}
        twice = paid(before) & paid(self.server.log(start=len(before)))
        missing = count - output.get("rows", 0)
        if not finished:
            self.note(f"{client}: not done {self.sizes.restart:g} s after the restart")
        answered = sum(entry["served"] > 0 for entry in before)
        long_before = [entry for entry in before if entry["time"] + entry["seconds"] < killed - 1.0]
        again_of = (str(requests_again(twice, log)) for log in (before, long_before))
        return [client, str(answered), *again_of, str(missing)]

    def d(self) -> list[Table]:
        """Part d: votes that stop early."""
        return [self.votes("stage", "votes", "questions of mixed difficulty"),
                self.votes("quickstart", "quickstart", "the quickstart's teacher")]  # fmt: skip

    def votes(self, work: str, answer: str, title: str) -> Table:
        rows, full = [], None
        for stop in ("none", "certain", "lead"):
            outcome = self.run("dsrl", work, self.sizes.votes, {"answer": answer}, "--stop", stop)
            if not outcome or not outcome.seconds:
                continue
            full = full or outcome.output
            rows.append(votes_row(stop, outcome.output, full))
        head = ["stop", "votes", "output tokens", "of all", "dollars", "of all", "candidates in both", "equal labels"]
        return (f"(d) {self.sizes.votes} samples, {title}", head, rows)


SPEED_HEAD = ["client", "requests/s", "CPU s per 1,000", "peak MB", "rows"]


def plain_faults() -> dict:
    """Fields of a server without faults."""
    return {name: getattr(Faults(), name) for name in Faults.__dataclass_fields__}


def ratio(seconds: float, ideal: float) -> list[str]:
    return [f"{ideal:.2f}", f"{seconds:.2f}", f"{seconds / ideal:.3f}"]


def chain_row(name: str, outcome: Outcome) -> list[str]:
    """Compare with the ideal: logged service times spread evenly over all slots, but at least the longest of them."""
    ideal = max(outcome.stats["service_seconds"] / CONCURRENCY, outcome.stats["longest_service"])
    return [name, str(outcome.rows), str(outcome.stats["requests"]), *ratio(outcome.seconds, ideal)]


def speed_row(outcome: Outcome, count: int) -> list[str]:
    rate, cpu = count / outcome.seconds, 1000 * outcome.cpu_seconds / count
    return [outcome.client, f"{rate:,.0f}", f"{cpu:.2f}", f"{outcome.peak_mb:.0f}", str(outcome.rows)]


def votes_row(stop: str, output: dict, full: dict) -> list[str]:
    """Compare with all votes: cost, and share of candidates with the same label or rejection."""
    both = output["labels"].keys() & full["labels"].keys()
    same = sum(output["labels"][index] == full["labels"][index] for index in both)
    spent, whole = output["spent"], full["spent"]
    return [
        stop,
        str(spent["completions"]),
        str(spent["output_tokens"]),
        f"{100 * spent['output_tokens'] / whole['output_tokens']:.1f} %",
        f"{spent['usd']:.4f}",
        f"{100 * spent['usd'] / whole['usd']:.1f} %",
        str(len(both)),
        f"{100 * same / max(1, len(both)):.2f} %",
    ]


def ranking(table: Table, column: str) -> str:
    """Rank of dsrl among the tools that keep their results and lost no rows."""
    title, head, rows = table
    place, most = head.index(column), column == "requests/s"
    losses = [head.index(name) for name in LOSSES if name in head]
    whole = [row for row in rows if row[0] in ("dsrl", *PEERS) and all(row[loss] == "0" for loss in losses)]
    figures = {row[0]: float(row[place].replace(",", "")) for row in whole}
    order = sorted(figures, key=figures.__getitem__, reverse=most)
    listed = ", ".join(f"{client} {figures[client]:g}" for client in order)
    first = "dsrl" in figures and figures["dsrl"] == figures[order[0]]
    return f"{title}, {column}: dsrl is {'first' if first else 'NOT first'} among those that keep results ({listed})"


def good(stats: dict) -> int:
    return stats["statuses"].get("200", 0)


def requests_again(twice: Counter, log: list[dict]) -> int:
    """Number of requests in the log with a completion that was delivered again."""
    return sum(
        any((entry["key"], entry["seed"] + choice) in twice for choice in range(entry["served"]))
        for entry in log
        if entry["served"]
    )


def recovery(log: list[dict], began: float, down: Outage) -> tuple[float, float]:
    """Seconds from the end of the outage to the first reply, and to 90 % of the earlier rate (over one second)."""
    replies = sorted(entry["time"] + entry["seconds"] - began for entry in log if entry["served"])
    rate = sum(time < down.start for time in replies) / down.start
    after = [time for time in replies if time >= down.end]
    ends = (time for time in after if sum(time - 1 < other <= time for other in after) >= 0.9 * rate)
    return after[0] - down.end, next(ends, float("nan")) - down.end


def markdown(table: Table) -> str:
    title, head, rows = table
    lines = [f"### {title}", "", *(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])]
    return "\n".join(lines) + "\n"


def machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f} at the start"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices="abcd", default=list("abcd"))
    parser.add_argument("--venvs", type=Path, help="folder for the environments of other tools; without it none is run")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="which of them")
    parser.add_argument("--out", type=Path, help="JSON file for all measurements")
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    asked = parser.parse_args()
    tables: list[Table] = []
    alone = bench(2000 if asked.tiny else 20000, CONCURRENCY).splitlines()
    print(f"{machine()}\n\nThe server alone: {'; '.join(alone)}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder, serve() as server:
        venvs = asked.venvs and asked.venvs.absolute()
        runs = Bench(server, Path(folder), TINY if asked.tiny else Sizes(), venvs, asked.peers)
        for part in asked.part:
            work: Callable[[], Table | list[Table]] = getattr(runs, part)
            made = work()
            new = made if isinstance(made, list) else [made]
            tables += new
            print("\n".join(markdown(table) for table in new), flush=True)
    if asked.out:
        output = {"machine": machine(), "tables": tables, "notes": runs.notes, "outcomes": runs.outcomes}
        asked.out.write_text(json.dumps(output, indent=1))


if __name__ == "__main__":
    main()
