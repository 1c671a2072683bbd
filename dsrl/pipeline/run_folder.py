"""The run folder: resolved config and versions at the start, `metrics.json` throughout, and the summary at the end."""

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dsrl import __version__
from dsrl.core.disk_space import refusal
from dsrl.core.errors import UserError
from dsrl.pipeline import cost, format_evaluation
from dsrl.pipeline.store import write_json

if TYPE_CHECKING:
    from dsrl.pipeline.config import Settings
    from dsrl.pipeline.context import Context

PACKAGES = ("hydra-core", "openai", "torch", "transformers", "trl", "datasets", "tantivy", "mlflow", "pydantic")
SCHEMA_VERSION = 1


def begin(context: "Context", values: dict[str, Any], settings: "Settings") -> None:
    """Create the run folder and write config, versions and git state into it. Raises `UserError` if it can't."""
    try:
        context.run_dir.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        (context.run_dir / "config.yaml").write_text(text, encoding="utf-8")
        write_json(context.run_dir / "run.json", environment_record(context.run_dir))
    except OSError as error:
        raise UserError(
            f"can't write into the run folder {context.run_dir}", got=error.strerror, next_step="hydra.run.dir=FOLDER"
        ) from error
    context.metrics.update(
        schema_version=SCHEMA_VERSION,
        name=settings.name,
        status="running",
        task=values["task"]["name"],
        model=values["model"].get("name"),
        teacher=values["teacher"].get("model"),
        seed=settings.seed,
        started=time.time(),
        warnings=[],
    )
    context.progress.say(
        f"dsrl {__version__}  task={values['task']['name']}  teacher={values['teacher'].get('model')}  "
        f"model={values['model'].get('name')}\nrun   {shown(context.run_dir)}\nstore {shown(context.store.root)}"
    )


def environment_record(run_dir: Path) -> dict[str, Any]:
    """Command, versions, machine and git state. Uncommitted changes go into `git.diff`."""
    commit, changes = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    if changes:
        (run_dir / "git.diff").write_text(changes + "\n", encoding="utf-8")
    return {
        "dsrl": __version__,
        "command": sys.argv,
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": {"commit": commit, "changed": bool(changes)},
    }


def end(context: "Context", status: str) -> str:
    """Finish `metrics.json` and print a summary. Returns the final status."""
    metrics = context.metrics
    if metrics.get("stopped_after") and status == "finished":
        status = "stopped"
    if context.stage and context.stage not in metrics.get("cost", {}) and (calls := context.ledger.of(context.stage)):
        cost.book(metrics, context.stage, calls, calls)
    metrics["calls"] = context.ledger.totals()
    metrics.update(status=status, finished=time.time(), warnings=list(context.progress.warnings))
    _write_final(context, status)
    if status in ("failed", "interrupted", "budget"):
        print_spending(context)
    print_evaluations(context)
    report = context.run_dir / "report.html"
    if report.is_file():
        context.progress.say(f"\nreport  {shown(report)}")
    return status


def _write_final(context: "Context", status: str) -> None:
    """Write the final metrics. A run that has failed must not fail again because the disk is full."""
    try:
        context.write_metrics()
    except OSError as error:
        if status in ("finished", "stopped"):
            raise refusal(error, "writing metrics.json", context.run_dir) from error
        context.progress.warn(f"metrics.json can't be written: {error.strerror}")


def print_evaluations(context: "Context") -> None:
    """Print the evaluations and where the graded replies are."""
    for role, block in context.metrics.get("evaluate", {}).items():
        if role in ("base", "trained"):
            place = Path(block["predictions"]) if block.get("predictions") else None
            shown_block = {**block, "predictions": place and shown(place)}
            context.progress.say("\n".join(["", *format_evaluation.lines(role, shown_block)]))
    ratings = context.store.root / "stages" / "difficulty" / context.metrics.get("keys", {}).get("difficulty", "")
    if (ratings / "ratings.parquet").is_file():
        context.progress.say(f"\nratings {shown(ratings / 'ratings.parquet')}")


def print_spending(context: "Context") -> None:
    """Print what a run that ended early has paid for, and which replies are kept."""
    spent, unstored = context.ledger.sums(), context.reply_cache.unstored
    if not spent.requests:
        return
    kept = f"every received reply is kept in {shown(context.reply_cache.folder)}"
    if unstored:
        read, written = (sum(getattr(usage, f"{way}_tokens") for usage in unstored) for way in ("input", "output"))
        kept = (
            f"{len(unstored)} of {spent.completions} received replies could not be stored "
            f"({read:,} input and {written:,} output tokens)"
        )
    context.progress.say(f"\nspent in this run: {spent.words()}; {kept}")


def shown(path: Path) -> str:
    """A path as typed from the working folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
