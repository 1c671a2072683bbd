"""Where the run came from: config, keys, versions, and what the run folder says about the code."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

PACKAGES = ("dsrl", "torch", "transformers", "trl", "vllm", "verl", "openai", "tantivy", "hydra-core", "pydantic")
FILES = ("config.yaml", "run.json", "git.diff")
LONGEST = 60_000
"""Characters of a file that are shown."""


@dataclass(frozen=True)
class Provenance:
    """For the folded section at the end of the page."""

    keys: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    """File name and content."""


def provenance(folder: Path, metrics: Mapping[str, Any]) -> Provenance:
    """What can be found; a file that is not there is left out."""
    return Provenance(
        keys=tuple((metrics.get("keys") or {}).items()),
        versions=(("python", python_version()), *installed()),
        files=tuple((name, shortened(folder / name)) for name in FILES if (folder / name).is_file()),
    )


def installed() -> tuple[tuple[str, str], ...]:
    """Versions of the packages that can change a result, without importing them."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def shortened(path: Path) -> str:
    """The text of a file, cut where it is very long."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n[cut: the rest is in {path.name}]"
