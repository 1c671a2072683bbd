"""Run one client in its own environment and process, and measure it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

from tests.support.faultserver import FaultServer

HERE = Path(__file__).parent
PYTHON = "3.11"
VENVS = {
    "anchors": ["openai==3.52.0", "aiohttp==3.14.5"],
    "datadesigner": ["data-designer==0.9.6"],
    "curator": ["bespokelabs-curator==0.1.31"],
    "distilabel": ["distilabel[openai]==1.5.3", "datasets==5.2.0", "requests", "openai==3.52.0"],
}
HOMES = {"gather": "anchors", "aiohttp": "anchors", "datadesigner": "datadesigner", "curator": "curator",
         "distilabel": "distilabel"}  # fmt: skip
OFTEN = 0.2
"""Seconds between samples of a client's memory."""
TAIL = 400


class Skipped(Exception):
    """A client can't be measured here; the message says why."""


@dataclass
class Outcome:
    """One measurement."""

    client: str
    seconds: float | None = None
    """Seconds from after the imports to the last row, reported by the client."""
    rows: int = 0
    output: dict = field(default_factory=dict)
    """The client's other output."""
    process_seconds: float = 0.0
    """Seconds of the whole process, including imports."""
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    """Peak resident memory of the process and its children."""
    stats: dict = field(default_factory=dict)
    """The server's statistics."""
    error: str | None = None

    @property
    def throttled(self) -> int:
        return self.stats["statuses"].get("429", 0)


def interpreter(client: str, venvs: Path | None) -> str:
    """Interpreter of an environment with this client, created if needed. Raises `Skipped` with the reason if not."""
    if client == "dsrl":
        return sys.executable
    if venvs is None:
        raise Skipped("no folder for its environment was given (--venvs)")
    home = venvs / HOMES[client]
    python = home / "bin" / "python"
    if not (home / "installed").is_file():
        if which("uv") is None:
            raise Skipped("uv, which installs it, isn't there")
        _run("uv", "venv", "--quiet", "--clear", "--python", PYTHON, str(home))
        _run("uv", "pip", "install", "--quiet", "--python", str(python), *VENVS[HOMES[client]])
        (home / "installed").touch()
    return str(python)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"it does not install: {done.stderr.strip()[-TAIL:]}")


class Started:
    """A running client."""

    def __init__(self, python: str, client: str, server: FaultServer, folder: Path, *work: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder.parent / f"{folder.name}.log"
        self.out = folder.parent / f"{folder.name}.out"
        script = str(HERE / f"with_{client}.py")
        command = [python, script, "--url", server.url, "--folder", str(folder), *work]
        paths = {"PYTHONPATH": os.pathsep.join(sys.path)} if client == "dsrl" else {}
        with self.log.open("ab") as errors, self.out.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=errors, env={**_environment(), **paths}, start_new_session=True
            )
        self.began = time.perf_counter()
        self.peak_mb = 0.0

    def watch(self, limit: float, until=lambda: False) -> bool:
        """Wait until it ends, `until()` is true, or `limit` seconds passed. Returns whether it ended by itself."""
        end = time.perf_counter() + limit
        while self.process.poll() is None and time.perf_counter() < end and not until():
            self.peak_mb = max(self.peak_mb, memory_mb(self.process.pid))
            time.sleep(OFTEN)
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill it and its children."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def output(self) -> dict:
        """The JSON object it printed at the end; empty if there is none."""
        output = self.out.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line for line in output if line.startswith('{"seconds"')]
        return json.loads(lines[-1]) if lines else {}

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace").strip()[-TAIL:]


def _environment() -> dict[str, str]:
    """An environment without API keys, proxies and paths of other environments."""
    unwanted = ("OPENAI_", "PYTHONPATH", "VIRTUAL_ENV", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(unwanted)}


def measure(
    client: str, server: FaultServer, folder: Path, work: str, count: int, *more: str, venvs: Path | None = None,
    limit: float = 300.0,
) -> Outcome:  # fmt: skip
    """Run a client after resetting the server's clock and log."""
    python = interpreter(client, venvs)
    server.set(clear=True, restart=True)
    before = os.times()
    started = Started(python, client, server, folder, "--work", work, "--count", str(count), *more)
    ended = started.watch(limit)
    if not ended:
        started.kill()
        return Outcome(client, stats=server.stats(), error=f"not done after {limit:g} s")
    output, after = started.output(), os.times()
    outcome = Outcome(
        client,
        seconds=output.pop("seconds", None),
        rows=output.pop("rows", 0),
        output=output,
        process_seconds=time.perf_counter() - started.began,
        cpu_seconds=after.children_user + after.children_system - before.children_user - before.children_system,
        peak_mb=started.peak_mb,
        stats=server.stats(),
    )
    if outcome.seconds is None:
        outcome.error = f"exit code {started.process.returncode}: {started.tail()}"
    return outcome


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children; shared pages count for each."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(memory_mb, children))
