"""One node's part of a Ray: the same program on every node, the first of which is the head.

Run by path, `python node.py`, by the interpreter that has Ray; so it imports nothing of dsrl. What it is told stands in
the environment variable DSRL_RAY, as JSON. When its standard input ends, or SIGTERM comes, it ends and all of Ray too.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

MARK = "DSRL_RAY_FOLDER"
"""Environment variable by which everything that this Ray started is found again."""
SERVICES = (
    *("node-manager-port", "object-manager-port", "runtime-env-agent-port"),
    *("dashboard-agent-listen-port", "metrics-export-port"),
)
"""Options of `ray start` for services that every node has; their ports follow the head's."""
KEPT_BYTES = 20_000_000
"""Of logs, of each node."""
SEGMENTS = "/dev/shm/"  # noqa: S108 - where POSIX shared memory lies
LEAKED = ("psm_", "sem.")
"""How Python names its segments and semaphores, which vLLM and loky leave behind when they are killed."""
LOOK_SECONDS = 5.0
"""Between looks at which of them are in use."""


def main() -> int:
    """Start Ray, wait for the end, and leave nothing behind; returns the exit code."""
    told = json.loads(os.environ["DSRL_RAY"])
    rank = int(os.environ.get("SLURM_PROCID", 0))
    over = Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    Thread(target=_end_of_input, args=[over], daemon=True).start()
    if rank:
        _await_head(told["head"], told["port"], over, told["ready_seconds"])
    elif _in_use(told["head"], told["port"]):
        print(f"port {told['port']} is in use on {socket.gethostname()}", flush=True)
        return 98
    temporary = Path(told["temporary"]) / str(rank)  # nodes may share that place
    told["temporary"] = str(temporary)
    temporary.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options(told, rank, os.environ)]
    environment = {**os.environ, MARK: str(temporary)}
    ray = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    segments: set[Path] = set()
    try:
        looked = 0.0
        while ray.poll() is None and not over.wait(0.2):
            if time.monotonic() > looked + LOOK_SECONDS:
                segments |= shared_memory(temporary)
                looked = time.monotonic()
        return 0 if over.wait(2.0) else ray.returncode or 1  # at the end, another node may be the first to hear of it
    finally:
        segments |= shared_memory(temporary)
        end(ray, temporary)
        for path in segments:
            path.unlink(missing_ok=True)
        gather(temporary, Path(told["logs"]) / socket.gethostname())
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.parent.rmdir()


def options(told: Mapping[str, Any], rank: int, environment: Mapping[str, str]) -> list[str]:
    """Of `ray start`, on this node."""
    head, port = told["head"], told["port"]
    cpus = told["cpus"] or environment.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
    gpus = told["gpus"] if told["gpus"] is not None else environment.get("SLURM_GPUS_ON_NODE")
    found = {"num-cpus": cpus, "num-gpus": gpus, "temp-dir": told["temporary"]}
    if told["fixed_ports"]:
        found |= {name: port + 1 + place for place, name in enumerate(SERVICES)}
    if told["object_store_gb"] is not None:
        found["object-store-memory"] = int(told["object_store_gb"] * 2**30)
    if rank == 0:
        own: list[str] = ["--head", f"--port={port}", f"--node-ip-address={head}", "--include-dashboard=false"]
    else:
        own = [f"--address={head}:{port}", f"--node-ip-address={towards(head)}"]
    return [*own, "--block", "--disable-usage-stats", *(f"--{k}={v}" for k, v in found.items() if v is not None)]


def towards(host: str) -> str:
    """Our own address on the way to another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        return str(probe.getsockname()[0])


def end(ray: "subprocess.Popen[bytes]", temporary: Path) -> None:
    """At once, where Ray's own takes half a minute: its session, then what left it, by a mark that all inherit."""
    with suppress(ProcessLookupError):
        os.killpg(ray.pid, signal.SIGKILL)
    ray.wait()
    for _ in range(3):  # one that is just being started is seen the next time
        for process in marked(temporary):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


def marked(temporary: Path) -> list[int]:
    """All that this Ray started, whatever session it is in."""
    mark, found = f"{MARK}={temporary}\0".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended
            found += [int(path.parent.name)] if mark in path.read_bytes() else []
    return [process for process in found if process != os.getpid()]


def shared_memory(temporary: Path) -> set[Path]:
    """Segments that these have open."""
    found: set[Path] = set()
    for process in marked(temporary):
        with suppress(OSError):
            text = Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
            found |= {Path(line[line.index(SEGMENTS) :]) for line in text.splitlines() if SEGMENTS in line}
            found |= {*Path(SEGMENTS).glob(f"sem.loky-{process}-*")}
    return {path for path in found if path.name.startswith(LEAKED)}


def gather(temporary: Path, logs: Path) -> None:
    """Ray's logs lie on the node; the newest of them are kept with the run's."""
    found = sorted(temporary.glob("session_2*/logs/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    left = KEPT_BYTES
    with suppress(OSError):  # a full disk is not to hide how it ended
        for path in (path for path in found if path.is_file() and path.stat().st_size):
            left -= path.stat().st_size
            if left < 0:
                return
            logs.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, logs / path.name)


def _await_head(host: str, port: int, over: Event, seconds: float) -> None:
    """Until the head listens, or for so long: then Ray itself says what is wrong."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not over.wait(0.5) and not _in_use(host, port):
        pass


def _in_use(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=2.0):
        return True
    return False


def _end_of_input(over: Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    sys.exit(main())
