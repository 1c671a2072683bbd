"""The run as a whole: who took part, what was left out, how many rows passed each stage, and how to reproduce it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting

MAX_REASONS = 6
NOT_SAMPLES = ("train", "evaluate")
"""Stages whose rows are not candidates or samples, by the start of their names."""
PACKAGES = ("dsrl", "torch", "transformers", "trl", "vllm", "verl", "openai", "tantivy", "hydra-core", "pydantic")
"""Packages that can change a result."""
FILES = ("config.yaml", "run.json", "git.diff")
MAX_FILE = 60_000
"""Characters of a file that are shown."""


def participants(state: PipelineState, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Task, models, seed and start of the run, without what is unknown."""
    named = {
        "Task": state.task.name,
        "Base model": state.base.name if state.base else metrics.get("model"),
        "Teacher": metrics.get("teacher"),
        "Seed": metrics.get("seed"),
        "Started": formatting.timestamp(metrics.get("started")),
        "Rounds": len(metrics["rounds"]) + 1 if metrics.get("rounds") else None,
    }
    return {name: str(value) for name, value in named.items() if value not in (None, "")}


def missing_parts(state: PipelineState) -> tuple[str, ...]:
    """What this run did not do."""
    parts = (
        ("pass rates", any(sample.score for sample in state.samples)),
        ("selection", bool(state.selected)),
        ("training", state.trained is not None),
        ("evaluation on a test set", bool(state.evaluation_base or state.evaluation_trained)),
    )
    return tuple(name for name, done in parts if not done)


@dataclass(frozen=True)
class FunnelStep:
    """Rows in and out of one stage. Widths are shares of the stage with the most rows."""

    stage: str
    rows_in: int
    rows_out: int
    rejected: int
    reasons: tuple[tuple[str, int], ...]
    """The most frequent first; the rest added up as `other reasons`."""
    width: float
    rejected_width: float


def funnel(metrics: Mapping[str, Any]) -> tuple[FunnelStep, ...]:
    """The stages that report rows, in the order in which they ran."""
    stages = {
        name: rows
        for name, rows in (metrics.get("rows") or {}).items()
        if "in" in rows and "out" in rows and not name.startswith(NOT_SAMPLES)
    }
    lost = {name: sum((rows.get("rejected") or {}).values()) for name, rows in stages.items()}
    widest = max((rows["out"] + lost[name] for name, rows in stages.items()), default=0) or 1
    return tuple(
        FunnelStep(
            stage=name,
            rows_in=rows["in"],
            rows_out=rows["out"],
            rejected=lost[name],
            reasons=_top_reasons(rows.get("rejected") or {}),
            width=rows["out"] / widest,
            rejected_width=lost[name] / widest,
        )
        for name, rows in stages.items()
    )


def _top_reasons(rejected: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    ranked = sorted(rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(ranked) <= MAX_REASONS:
        return tuple(ranked)
    rest = sum(count for _, count in ranked[MAX_REASONS:])
    return (*ranked[:MAX_REASONS], ("other reasons", rest))


@dataclass(frozen=True)
class RunOrigin:
    """Keys, versions, and files of the run folder as (name, content)."""

    keys: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]


def run_origin(folder: Path, metrics: Mapping[str, Any]) -> RunOrigin:
    """What is needed to reproduce the run, as far as the run folder has it."""
    return RunOrigin(
        keys=tuple((metrics.get("keys") or {}).items()),
        versions=(("python", python_version()), *installed_versions()),
        files=tuple((name, _read_cut(folder / name)) for name in FILES if (folder / name).is_file()),
    )


def installed_versions() -> tuple[tuple[str, str], ...]:
    """Versions of `PACKAGES`, read without importing them."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def _read_cut(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return text if len(text) <= MAX_FILE else f"{text[:MAX_FILE]}\n[cut: see {path.name} for the rest]"
