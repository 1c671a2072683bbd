"""What is logged of a run, as plain values for the child that talks to MLflow."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dsrl.core.digest import digest

if TYPE_CHECKING:
    from dsrl.data.evaluation import Evaluation
    from dsrl.data.task import Task


class TrackedRun(Protocol):
    """What tracking needs to know of a run: `dsrl.pipeline.context.Context`."""

    @property
    def run_dir(self) -> Path: ...
    @property
    def metrics(self) -> dict[str, Any]: ...


class TrackedState(Protocol):
    """What tracking needs to know of the results: `dsrl.pipeline.state.PipelineState`."""

    @property
    def task(self) -> "Task": ...
    @property
    def selected(self) -> tuple[str, ...]: ...
    @property
    def files(self) -> dict[str, Path]: ...
    @property
    def evaluation_base(self) -> "Evaluation | None": ...
    @property
    def evaluation_trained(self) -> "Evaluation | None": ...


MAX_PARAMETER = 6000
"""Maximum length of a parameter in MLflow, in characters."""
SECRET = re.compile(r"(api_?key|access_?key|secret|token|password)$", re.IGNORECASE)
PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
INVALID = re.compile(r"[^\w\-. :/]")
ARTIFACTS = ("report.html", "metrics.json", "config.yaml", "run.json")
FIGURES = ("stages", "evaluate", "rows", "calls", "seconds")
"""Blocks of `metrics.json` whose numbers are logged as metrics."""


def opening(run: TrackedRun, values: Mapping[str, Any], in_sweep: bool) -> dict[str, Any]:
    """What is logged at the start. Runs of a sweep share their name, so the folder's name is added."""
    name = str(values.get("name") or run.run_dir.name)
    return {
        "name": f"{name} {run.run_dir.name}" if in_sweep else name,
        "parameters": parameters(values),
        "tags": tags(run),
    }


def closing(run: TrackedRun, state: TrackedState | None, status: str) -> dict[str, Any]:
    """What is logged at the end."""
    progress = state.files.get("train/progress.jsonl") if state else None
    return {
        "status": status,
        "metrics": figures(run.metrics, state),
        "tags": {f"dsrl.key.{stage}": key for stage, key in (run.metrics.get("keys") or {}).items()},
        "progress": str(progress) if progress else None,
        "data_sets": data_sets(state) if state else [],
        "artifacts": [str(path) for name in ARTIFACTS if (path := run.run_dir / name).is_file()],
    }


def parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """The flattened config. A group that a stage repeats is logged as its name, a secret as `***`."""
    named = ((name, node) for name, node in values.items() if isinstance(node, dict) and node)
    groups = {json.dumps(node, sort_keys=True): name for name, node in named}
    hidden = keys_in_use(values)
    found: dict[str, str] = {}
    for name, value in values.items():
        if name == "pipeline" and isinstance(value, dict):
            found[name] = " -> ".join(value)
            continue
        for path, leaf in leaves(value, name, groups):
            text = leaf if isinstance(leaf, str) else json.dumps(leaf, ensure_ascii=False)
            found[INVALID.sub("_", path)] = "***" if SECRET.search(path) else safe(text, hidden)[:MAX_PARAMETER]
    return found


def leaves(value: Any, path: str, groups: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every leaf below `value`."""
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    group = groups.get(json.dumps(value, sort_keys=True))
    if group is not None and group != path:
        yield path, f"${{{group}}}"
        return
    for name, item in value.items():
        yield from leaves(item, f"{path}.{name}", groups)


def keys_in_use(value: Any) -> frozenset[str]:
    """Values of the environment variables that the config names as secrets. They must never be written."""
    if isinstance(value, list):
        return frozenset().union(*map(keys_in_use, value))
    if not isinstance(value, Mapping):
        return frozenset()
    named = [item for name, item in value.items() if str(name).endswith("_env") and isinstance(item, str)]
    found = frozenset(os.environ[name] for name in named if os.environ.get(name))
    return found.union(*map(keys_in_use, value.values()))


def safe(text: str, hidden: frozenset[str] = frozenset()) -> str:
    """The text without secrets and without passwords in URLs."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return without_password(text)


def without_password(text: str) -> str:
    """`https://user:password@host` without the user."""
    return PASSWORD.sub("", text)


def tags(run: TrackedRun) -> dict[str, str]:
    """Location and code version of the run."""
    record = run.run_dir / "run.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    found = {
        "dsrl.version": known.get("dsrl"),
        "dsrl.run_dir": str(run.run_dir.absolute()),
        "dsrl.task": run.metrics.get("task"),
        "dsrl.teacher": run.metrics.get("teacher"),
        "dsrl.model": run.metrics.get("model"),
        "mlflow.source.git.commit": (known.get("git") or {}).get("commit"),
        "dsrl.git.changed": (known.get("git") or {}).get("changed"),
        "mlflow.source.name": "dsrl",
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def figures(metrics: Mapping[str, Any], state: TrackedState | None) -> dict[str, float]:
    """Every finite number of the metrics, by path."""
    parts = {name: metrics.get(name) for name in FIGURES}
    parts["evaluation"] = evaluations(state) if state else {}
    found: dict[str, float] = {}
    for name, part in parts.items():
        found |= numbers(part, "" if name == "stages" else name)
    return found


def numbers(value: Any, path: str) -> dict[str, float]:
    """`{"a": {"b": 1}}` -> `{"a/b": 1.0}`, without lists and strings."""
    if isinstance(value, Mapping):
        return {
            name: number
            for key, item in value.items()
            for name, number in numbers(item, f"{path}/{key}" if path else str(key)).items()
        }
    if isinstance(value, (int, float)) and math.isfinite(value):
        return {INVALID.sub("_", path)[:250]: float(value)}
    return {}


def evaluations(state: TrackedState) -> dict[str, Any]:
    """The evaluations, without their items."""
    models = {"base": state.evaluation_base, "trained": state.evaluation_trained}
    return {
        name: {
            "pass_at_1": found.pass_at_1.value,
            "low": found.pass_at_1.low,
            "high": found.pass_at_1.high,
            "greedy": found.greedy.value,
            "format_ok": found.format_ok.value,
            "format_free": found.format_free.value,
            "truncated": found.truncated.value,
        }
        for name, found in models.items()
        if found
    }


def data_sets(state: TrackedState) -> list[dict[str, Any]]:
    """The training samples and the test set, as MLflow data sets."""
    found = []
    if state.selected:
        tables = [path for name, path in state.files.items() if name.endswith("/samples.parquet")]
        source = str(tables[-1]) if tables else ""
        selected = {"name": f"{state.task.name}-selected", "digest": digest(list(state.selected))}
        found.append({**selected, "context": "training", "source": source, "rows": len(state.selected)})
    evaluation = state.evaluation_base or state.evaluation_trained
    if evaluation and state.task.test:
        test = {"name": f"{state.task.name}-test", "digest": evaluation.test[:36], "context": "testing"}
        found.append({**test, "source": state.task.test.path, "rows": evaluation.num_items})
    return found
