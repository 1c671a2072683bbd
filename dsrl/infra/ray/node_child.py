"""One node's part of a Ray. The same program runs on every node of the cluster; the first one is the head.

The interpreter that has Ray runs this file by path, so it imports nothing of dsrl. Its settings are JSON in the
environment variable DSRL_RAY. At the end of its standard input, or on SIGTERM, it stops Ray and everything Ray started.
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

FOLDER_VARIABLE = "DSRL_RAY_FOLDER"
"""Environment variable that all processes of this Ray inherit, so that they can be found and killed."""
SERVICES = (
    *("node-manager-port", "object-manager-port", "runtime-env-agent-port"),
    *("dashboard-agent-listen-port", "metrics-export-port"),
)
"""Port options of `ray start` for the services of every node; they get the ports after the head's."""
MAX_LOG_BYTES = 20_000_000
"""Size of the logs that are kept of each node."""
SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - where POSIX shared memory lies
LEAKED_PREFIXES = ("psm_", "sem.")
"""Prefixes of Python's shared memory and semaphores, which vLLM and loky leave behind when they are killed."""
SCAN_SECONDS = 5.0
"""Interval between searches for shared memory in use."""


def main() -> int:
    """Start Ray, wait for the end, clean up; returns the exit code."""
    settings = json.loads(os.environ["DSRL_RAY"])
    rank = int(os.environ.get("SLURM_PROCID", 0))
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Thread(target=_stop_at_end_of_input, args=[stop], daemon=True).start()
    head, port = settings["head"], settings["port"]
    if rank:
        deadline = time.monotonic() + settings["ready_seconds"]  # after it, `ray start` itself reports what is wrong
        while time.monotonic() < deadline and not stop.wait(0.5) and not _in_use(head, port):
            pass
    elif _in_use(head, port):
        print(f"port {port} is in use on {socket.gethostname()}", flush=True)
        return 98
    temporary = Path(settings["temporary"]) / str(rank)  # nodes may share the parent folder
    settings["temporary"] = str(temporary)
    temporary.mkdir(parents=True, exist_ok=True)
    ray = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *ray_start_options(settings, rank, os.environ)],
        env={**os.environ, FOLDER_VARIABLE: str(temporary)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    segments: set[Path] = set()
    try:
        scanned = 0.0
        while ray.poll() is None and not stop.wait(0.2):
            if time.monotonic() > scanned + SCAN_SECONDS:
                segments |= shared_memory(temporary)
                scanned = time.monotonic()
        return 0 if stop.wait(2.0) else ray.returncode or 1  # at the end, Ray may notice before this process does
    finally:
        segments |= shared_memory(temporary)
        kill_ray(ray, temporary)
        for path in segments:
            path.unlink(missing_ok=True)
        keep_logs(temporary, Path(settings["logs"]) / socket.gethostname())
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.parent.rmdir()


def ray_start_options(settings: Mapping[str, Any], rank: int, environment: Mapping[str, str]) -> list[str]:
    """Arguments of `ray start` on the node with this rank."""
    head, port = settings["head"], settings["port"]
    cpus = settings["cpus"] or environment.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
    gpus = settings["gpus"] if settings["gpus"] is not None else environment.get("SLURM_GPUS_ON_NODE")
    options = {"num-cpus": cpus, "num-gpus": gpus, "temp-dir": settings["temporary"]}
    if settings["fixed_ports"]:
        options |= {name: port + 1 + offset for offset, name in enumerate(SERVICES)}
    if settings["object_store_gb"] is not None:
        options["object-store-memory"] = int(settings["object_store_gb"] * 2**30)
    if rank == 0:
        own: list[str] = ["--head", f"--port={port}", f"--node-ip-address={head}", "--include-dashboard=false"]
    else:
        own = [f"--address={head}:{port}", f"--node-ip-address={address_towards(head)}"]
    return [*own, "--block", "--disable-usage-stats", *(f"--{k}={v}" for k, v in options.items() if v is not None)]


def address_towards(host: str) -> str:
    """The IPv4 address of this machine's interface that reaches `host`. Raises OSError if the name doesn't resolve."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        return str(probe.getsockname()[0])


def kill_ray(ray: "subprocess.Popen[bytes]", temporary: Path) -> None:
    """Kill Ray's session and every process that left it. `ray stop` takes half a minute."""
    with suppress(ProcessLookupError):
        os.killpg(ray.pid, signal.SIGKILL)
    ray.wait()
    for _ in range(3):  # a process that is just starting is found by the next search
        for process in ray_processes(temporary):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


def ray_processes(temporary: Path) -> list[int]:
    """Ids of all processes that this Ray started, in whatever session they are."""
    variable, found = f"{FOLDER_VARIABLE}={temporary}\0".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended
            found += [int(path.parent.name)] if variable in path.read_bytes() else []
    return [process for process in found if process != os.getpid()]


def shared_memory(temporary: Path) -> set[Path]:
    """Shared memory and semaphores that the processes of this Ray have open."""
    found: set[Path] = set()
    for process in ray_processes(temporary):
        with suppress(OSError):
            text = Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
            found |= {Path(line[line.index(SHARED_MEMORY) :]) for line in text.splitlines() if SHARED_MEMORY in line}
            found |= {*Path(SHARED_MEMORY).glob(f"sem.loky-{process}-*")}
    return {path for path in found if path.name.startswith(LEAKED_PREFIXES)}


def keep_logs(temporary: Path, logs: Path) -> None:
    """Copy the newest of Ray's logs, up to `MAX_LOG_BYTES`, from this node to the run's folder."""
    paths = sorted(temporary.glob("session_2*/logs/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    left = MAX_LOG_BYTES
    with suppress(OSError):  # a full disk must not hide why Ray ended
        for path in (path for path in paths if path.is_file() and path.stat().st_size):
            left -= path.stat().st_size
            if left < 0:
                return
            logs.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, logs / path.name)


def _stop_at_end_of_input(stop: Event) -> None:
    sys.stdin.read()
    stop.set()


def _in_use(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=2.0):
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
