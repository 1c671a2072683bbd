"""The GPUs of this machine, without importing torch."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

QUERY = ("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
MIB_PER_GIB = 1024


@dataclass(frozen=True)
class VisibleGpus:
    """The GPUs that CUDA shows to this process."""

    names: tuple[str, ...] = ()
    """Indices or UUIDs, as in `CUDA_VISIBLE_DEVICES`."""
    gibibytes: float | None = None
    """Memory of the smallest one; None if unknown, as for MIG slices."""


@cache
def visible_gpus() -> VisibleGpus:
    """Ask `nvidia-smi`, and apply `CUDA_VISIBLE_DEVICES`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return VisibleGpus()
    try:
        done = subprocess.run([program, *QUERY], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return VisibleGpus()
    return parse_gpus(done.stdout if done.returncode == 0 else "", os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(report: str, visible: str | None) -> VisibleGpus:
    """Parse lines of `index, UUID, MiB`. `visible` is read as CUDA reads it: indices, or UUIDs that may be shortened;
    an entry that matches no GPU hides itself and all entries after it (so `-1` and `NoDevFiles` hide every GPU)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in report.splitlines() if line.count(",") == 2]
    if visible is None:
        names = [index for index, _, _ in rows]
    else:
        names = []
        for name in map(str.strip, visible.split(",")):
            if not (_row_of(name, rows) or (rows and name.startswith("MIG-"))):
                break
            names.append(name)
    sizes = [row[2] if (row := _row_of(name, rows)) else "" for name in names]
    known = [float(size) / MIB_PER_GIB for size in sizes if size.replace(".", "", 1).isdigit()]
    return VisibleGpus(tuple(names), min(known, default=None) if len(known) == len(names) else None)


def _row_of(name: str, rows: list[list[str]]) -> list[str] | None:
    return next((row for row in rows if name == row[0] or (name.startswith("GPU-") and row[1].startswith(name))), None)
