"""Run by path in the sandboxed process: gives its rights away, then runs the program and its tests. Imports no dsrl."""

import ctypes
import json
import os
import resource
import sys
from pathlib import Path

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
FILE_BYTES = 1 << 16
OPEN_NETWORK = 77


def main() -> None:
    order = json.load(sys.stdin)
    closed = close_network()
    if order["require_isolation"] and not closed:
        sys.exit(OPEN_NETWORK)
    limit(order["seconds"], order["memory_mb"] << 20)
    verdict = Path.cwd() / "verdict"
    word = order.pop("word")
    names = {"__name__": "__main__"}
    exec(compile(order["program"], "program", "exec"), names)  # noqa: S102
    exec(compile(order["tests"], "tests", "exec"), names)  # noqa: S102
    verdict.write_text(word)


def limit(seconds: float, memory: int) -> None:
    """Soft and hard limits alike, so that the program can't raise them."""
    whole = max(1, round(seconds + 0.5))
    for name, value in (
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))


def close_network() -> bool:
    """Whether this process now has a network namespace of its own, with nothing in it."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    wanted = NEW_NETWORK if os.geteuid() == 0 else NEW_USER | NEW_NETWORK
    return bool(library.unshare(wanted) == 0) or bool(library.unshare(NEW_USER | NEW_NETWORK) == 0)


if __name__ == "__main__":
    main()
