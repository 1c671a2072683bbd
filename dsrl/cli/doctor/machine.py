"""What this machine has: packages, disk space, GPUs, Slurm, MLflow; and the environment of train=verl."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsrl.cli.doctor.finding import Finding, Mark

PACKAGES = {
    **dict.fromkeys(("pydantic", "hydra-core", "jinja2", "pyarrow", "tantivy", "aiohttp"), True),
    **dict.fromkeys(("mlflow", "torch", "transformers", "trl"), False),
}
"""Package -> whether dsrl needs it for everything."""
OPTIONS = {
    "rollout=transformers": ("local", ("torch", "transformers", "accelerate")),
    "train=trl, sft": ("local", ("torch", "transformers", "accelerate", "datasets", "trl")),
    "launcher=slurm": ("slurm", ("submitit",)),
    "cluster=...": ("ray", ("ray",)),
    "wandb=true": ("wandb", ("wandb",)),
    "dense passages": ("dense", ("sentence_transformers",)),
    "near duplicates": ("near", ("rensa",)),
}
"""Choice -> the extra that installs what it needs, and the modules that it needs."""
PROGRAM_SECONDS = 5.0
"""Time limit of a program that may hang, such as nvidia-smi with a broken driver."""
TRAINER_SECONDS = 20.0
LITTLE_SPACE = 5 * 2**30
"""Bytes below which a store is soon full."""
PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
def known(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], **{name: known(name) for name in sys.argv[1:]}}))
"""
"""Asks another interpreter for versions. It imports only Python's own modules: veRL and torch take many seconds."""
INSTALL_VERL = (
    "make verl and train.python=.venv-verl/bin/python, or on GPUs: pip install 'dsrl[gpu]' (docs/training_verl.md)"
)


def check_machine(store: str, tracking_uri: str | None) -> Iterator[Finding]:
    """One line for each thing a run may need."""
    from importlib.metadata import PackageNotFoundError, version

    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok" if sys.version_info >= (3, 11) else "!!", "Python", python)
    for name, needed in PACKAGES.items():
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("!!" if needed else "-", name, "not installed")
    for option, (extra, modules) in OPTIONS.items():
        missing = [module for module in modules if find_spec(module) is None]
        lacks = f"needs {', '.join(missing)}: pip install 'dsrl[{extra}]'"
        yield Finding("-" if missing else "ok", option, lacks if missing else "installed")
    yield _store(Path(store).expanduser().absolute())
    yield from _gpus()
    yield from _slurm()
    yield _mlflow(tracking_uri)


def _store(store: Path) -> Finding:
    folder = next(parent for parent in (store, *store.parents) if parent.is_dir())
    if not os.access(folder, os.W_OK):
        return Finding("!!", "store", f"{store}: no permission to write there")
    free = shutil.disk_usage(folder).free
    return Finding("ok" if free > LITTLE_SPACE else "!!", "store", f"{store}: {free / 2**30:.0f} GiB free")


def _gpus() -> Iterator[Finding]:
    """The GPUs with their memory, and whether CUDA_VISIBLE_DEVICES hides some of them."""
    lines = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    folder = Path("/proc/driver/nvidia/gpus")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    if not lines:
        yield Finding("ok" if count else "-", "GPUs", f"{count} from NVIDIA" if count else "no NVIDIA GPU found")
        return
    yield Finding("ok", "GPUs", f"{len(lines)}: {'; '.join(sorted(set(lines)))}")
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        yield Finding("ok" if visible else "-", "GPUs in use", f"CUDA_VISIBLE_DEVICES={visible or '(none)'}")


def _slurm() -> Iterator[Finding]:
    """Whether jobs can be submitted from here, and the allocation that this shell is in."""
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
        nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
        yield Finding("ok", "allocation", f"job {job}, {nodes} nodes: runs use it as it is")


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


def check_trainer(python: str | None, *, needed: bool) -> Iterator[Finding]:
    """One line for each package of train=verl, whose environment may be another than dsrl's own. `python` is
    `train.python` of the config; `needed` tells whether it was asked for."""
    from dsrl.stages.train.verl.config_schema import VERSION
    from dsrl.stages.train.verl.preflight import NEEDED

    missing: Mark = "!!" if needed else "-"
    given = python or os.environ.get("DSRL_VERL_PYTHON") or sys.executable
    path = shutil.which(os.path.expanduser(given))
    if path is None:
        yield Finding(missing, "interpreter", f"{given}: no such program; {INSTALL_VERL}")
        return
    versions, problem = _versions(path, (*NEEDED, "dsrl"))
    if problem:
        yield Finding(missing, "interpreter", f"{given}: {problem}")
        return
    yield Finding("ok", "interpreter", f"{given}, Python {versions['python']}")
    for name in (*NEEDED, "dsrl"):
        text = versions[name] or "not installed"
        if name == "verl" and versions[name] not in (None, VERSION):
            yield Finding(missing, name, f"{text}, but dsrl works with {VERSION}: pip install verl=={VERSION}")
        else:
            yield Finding("ok" if versions[name] else missing, name, text)
    if not all(versions[name] for name in NEEDED):
        yield Finding(missing, "next", INSTALL_VERL)


def _versions(python: str, names: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Versions of packages in another environment, and why there are none (empty if there are)."""
    command = [os.path.abspath(python), "-P", "-c", PROBE, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRAINER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {TRAINER_SECONDS:g} s"
    except OSError as error:
        return {}, error.strerror or str(error)
    if done.returncode != 0:
        return {}, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    versions: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return versions, ""


def _output(*command: str) -> list[str]:
    """Lines of a program's output; empty if it isn't there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
