"""What this machine has: Python, packages, room for the store, GPUs, Slurm, a tracking server that answers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dsrl.cli.doctor.finding import Finding

PACKAGES = {
    **dict.fromkeys(("pydantic", "hydra-core", "jinja2", "pyarrow", "tantivy", "aiohttp"), True),
    **dict.fromkeys(("mlflow", "torch", "transformers", "trl"), False),
}
"""Name -> whether nothing works without it."""
OPTIONS = {
    "rollout=transformers": ("local", ("torch", "transformers", "accelerate")),
    "train=trl, sft": ("local", ("torch", "transformers", "accelerate", "datasets", "trl")),
    "launcher=slurm": ("slurm", ("submitit",)),
    "cluster=...": ("ray", ("ray",)),
    "wandb=true": ("wandb", ("wandb",)),
    "dense passages": ("dense", ("sentence_transformers",)),
    "near duplicates": ("near", ("rensa",)),
}
"""What can be chosen -> the extra that brings what it needs, and the modules that it needs."""
ANSWER_SECONDS = 5.0
"""For a program that may hang, such as nvidia-smi on a broken driver."""
LITTLE_SPACE = 5 * 2**30
"""Bytes below which a store is soon full."""


def machine(store: str, tracking_uri: str | None) -> Iterator[Finding]:
    """One line for each thing."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok" if sys.version_info >= (3, 11) else "!!", "Python", version)
    yield from _packages()
    yield from _options()
    yield _space(Path(store).expanduser().absolute())
    yield from _gpus()
    yield from _slurm()
    yield _mlflow(tracking_uri)


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    for name, needed in PACKAGES.items():
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("!!" if needed else "-", name, "not installed")


def _space(store: Path) -> Finding:
    folder = next(parent for parent in (store, *store.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    text = f"{store}: {free / 2**30:.0f} GiB free"
    if not os.access(folder, os.W_OK):
        return Finding("!!", "store", f"{store}: no right to write there")
    return Finding("ok" if free > LITTLE_SPACE else "!!", "store", text)


def _options() -> Iterator[Finding]:
    """What each option still needs, so that nobody finds out after an hour."""
    from importlib.util import find_spec

    for option, (extra, modules) in OPTIONS.items():
        missing = [module for module in modules if find_spec(module) is None]
        lacks = f"needs {', '.join(missing)}: pip install 'dsrl[{extra}]'"
        yield Finding("-" if missing else "ok", option, lacks if missing else "installed")


def _gpus() -> Iterator[Finding]:
    """Each with its memory, and whether a restriction hides some of them."""
    lines = _said("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    folder = Path("/proc/driver/nvidia/gpus")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    if not lines:
        yield Finding("ok" if count else "-", "GPUs", f"{count} of NVIDIA" if count else "none of NVIDIA is seen")
        return
    yield Finding("ok", "GPUs", f"{len(lines)}: {'; '.join(sorted(set(lines)))}")
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        yield Finding("ok" if visible else "-", "GPUs in use", f"CUDA_VISIBLE_DEVICES={visible or '(none)'}")


def _slurm() -> Iterator[Finding]:
    """Whether jobs can be sent from here, and the allocation that we are in."""
    from dsrl.core.errors import UserError
    from dsrl.infra.slurm.commands import allocation, partitions

    if shutil.which("sbatch") is None:
        yield Finding("-", "Slurm", "no sbatch on the PATH: dsrl submit and hydra/launcher=slurm need a login node")
        return
    try:
        known = partitions()
    except UserError as error:
        yield Finding("-", "Slurm", " ".join(str(error).split()))
        return
    yield Finding("ok", "Slurm", "; ".join(map(str, known)) or "no partition that you may use")
    if job := allocation():
        yield Finding(
            "ok", "allocation", f"job {job}, {os.environ.get('SLURM_JOB_NUM_NODES', '1')} nodes: used as it is"
        )


def _said(*command: str) -> list[str]:
    """Lines of a program's answer; none where it isn't there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _mlflow(uri: str | None) -> Finding:
    import socket
    from urllib.parse import urlsplit

    if not uri or not uri.startswith(("http://", "https://")):
        return Finding("ok", "MLflow", f"{uri or 'SQLite in the store'}, no server")
    parts = urlsplit(uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=1.0).close()
    except (OSError, ValueError) as error:
        return Finding("!!", "MLflow", f"{uri}: {error}")
    return Finding("ok", "MLflow", f"{uri} is reachable")
