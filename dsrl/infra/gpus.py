"""The GPUs of this machine, without importing torch."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

QUERY = ("--query-gpu=index,memory.total", "--format=csv,noheader,nounits")
MIB_PER_GIB = 1024


@dataclass(frozen=True)
class Gpus:
    """Those that this process may use."""

    names: tuple[str, ...] = ()
    """As in `CUDA_VISIBLE_DEVICES`."""
    gibibytes: float | None = None
    """Memory of the smallest; None: unknown."""


@cache
def gpus_here() -> Gpus:
    """What `nvidia-smi` reports, as far as `CUDA_VISIBLE_DEVICES` allows it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Gpus()
    try:
        done = subprocess.run([program, *QUERY], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Gpus()
    return parsed(done.stdout if done.returncode == 0 else "", os.environ.get("CUDA_VISIBLE_DEVICES"))


def parsed(report: str, visible: str | None) -> Gpus:
    """Out of the lines `index, MiB`; `visible` names some of them, by index or by name."""
    rows = [line.split(",") for line in report.splitlines() if line.count(",") == 1]
    sizes = {index.strip(): size.strip() for index, size in rows}
    names = tuple(sizes) if visible is None else tuple(name.strip() for name in visible.split(",") if name.strip())
    known = [float(size) / MIB_PER_GIB for size in sizes.values() if size.replace(".", "").isdigit()]
    return Gpus(names if sizes else (), min(known, default=None))
