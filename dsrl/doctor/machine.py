"""What this machine has: Python, packages, room for the store, GPUs, a tracking server that answers."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from dsrl.doctor.finding import Finding

PACKAGES = {
    **dict.fromkeys(("pydantic", "hydra-core", "jinja2", "pyarrow", "tantivy", "aiohttp"), True),
    **dict.fromkeys(("mlflow", "torch", "transformers", "trl"), False),
}
"""Name -> whether nothing works without it."""
LITTLE_SPACE = 5 * 2**30
"""Bytes below which a store is soon full."""


def machine(store: str, tracking_uri: str | None) -> Iterator[Finding]:
    """One line for each thing."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok" if sys.version_info >= (3, 11) else "!!", "Python", version)
    yield from _packages()
    yield _space(Path(store).expanduser().absolute())
    yield _gpus()
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


def _gpus() -> Finding:
    folder = Path("/proc/driver/nvidia/gpus")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    return Finding("ok" if count else "-", "GPUs", f"{count} of NVIDIA" if count else "none of NVIDIA is seen")


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
