"""Evaluate each checkpoint of a folder in a run of its own, one after the other, and print a table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.evaluate_checkpoints.folders import Checkpoint, checkpoints
from dsrl.core.errors import BudgetReached, StageFailed, UserError
from dsrl.data.evaluation import Estimate, Evaluation
from dsrl.pipeline.format_evaluation import interval
from dsrl.pipeline.store import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from omegaconf import DictConfig

    from dsrl.pipeline.state import PipelineState

TABLE = "checkpoints.json"
CAUTION = (
    "Choosing a checkpoint by this table means choosing it on the test set: the best of several looks better than it\n"
    "is, and so does its gain over the base model. Choose on held-out samples (train.keep=best), or report it."
)


@dataclass(frozen=True)
class CheckpointResult:
    """The result of one checkpoint: a row of the table."""

    step: int | None
    path: str
    run: str
    """Folder of its run."""
    num_items: int | None = None
    pass_at_1: Estimate | None = None
    greedy: Estimate | None = None
    fault: str = ""
    """Why it was not evaluated; empty if it was."""


def evaluate_checkpoints(
    config: "DictConfig", run_dir: Path, run: "Callable[[DictConfig, Path], PipelineState]"
) -> None:
    """Evaluate the requested checkpoints, each in its own run folder; results in the store are reused. Raises
    `StageFailed` at the end if some could not be evaluated."""
    wanted = _requested_steps(config.checkpoints)
    if config.model.get("path") is None:
        raise UserError("checkpoints needs the folder that they are in", next_step="model=hf model.path=FOLDER")
    folder = Path(config.model.path).expanduser()
    chosen = checkpoints(folder, wanted)
    print(f"{len(chosen)} checkpoints in {folder}: {', '.join(one.name for one in chosen)}", flush=True)
    rows: list[CheckpointResult] = []
    for one in chosen:
        rows.append(_evaluate(one, config, run_dir / one.name, run))
        write_json(run_dir / TABLE, {"checkpoints": [asdict(row) for row in rows], "caution": CAUTION})
    print("\n".join(["", *table(rows), "", CAUTION, f"\ntable  {run_dir / TABLE}"]))
    if broken := [row for row in rows if row.fault]:
        raise StageFailed(
            f"{len(broken)} of {len(rows)} checkpoints could not be evaluated",
            got="; ".join(f"{row.path}: {row.fault}" for row in broken),
            next_step="repair or remove them, then run the same command: the others are in the store",
        )


def table(rows: Sequence[CheckpointResult]) -> Iterator[str]:
    """One line per step: pass@1 and greedy accuracy with their intervals, or the fault."""
    yield f"{'step':>8}  {'pass@1':<26}{'greedy':<26}items"
    for row in rows:
        step = "last" if row.step is None else str(row.step)
        if row.pass_at_1 is None or row.greedy is None:
            yield f"{step:>8}  not evaluated: {row.fault}"
            continue
        shares = "".join(f"{interval(one.value, one.low, one.high):<26}" for one in (row.pass_at_1, row.greedy))
        yield f"{step:>8}  {shares}{row.num_items}"


def _requested_steps(value: Any) -> list[int] | None:
    """The requested steps; None for all."""
    if value == "all":
        return None
    steps = [value] if isinstance(value, int) else list(value) if not isinstance(value, str) else []
    if not steps or not all(isinstance(step, int) for step in steps):
        raise UserError(
            "checkpoints: neither all nor a list of steps", got=value, allowed="all, or steps such as [100,200]"
        )
    return steps


def _evaluate(
    one: Checkpoint, config: "DictConfig", run_dir: Path, run: "Callable[[DictConfig, Path], PipelineState]"
) -> CheckpointResult:
    print(f"\n{one.name}: {one.fault or one.path}", flush=True)
    if one.fault:
        return CheckpointResult(one.step, str(one.path), "", fault=one.fault)
    try:
        evaluation = run(_config_for(config, one), run_dir).evaluation_base
    except BudgetReached:
        raise
    except UserError as error:  # of this checkpoint alone
        return CheckpointResult(one.step, str(one.path), str(run_dir), fault=str(error).splitlines()[0])
    return _row(one, run_dir, evaluation)


def _config_for(config: "DictConfig", one: Checkpoint) -> "DictConfig":
    """The config of a run that evaluates this checkpoint."""
    own = config.copy()
    name = config.name
    own.checkpoints = None
    own.model.path = str(one.path)
    own.name = f"{name}.{one.name}"
    return own


def _row(one: Checkpoint, run_dir: Path, evaluation: Evaluation | None) -> CheckpointResult:
    if evaluation is None:
        return CheckpointResult(one.step, str(one.path), str(run_dir), fault="the task has no test set")
    return CheckpointResult(
        step=one.step,
        path=str(one.path),
        run=str(run_dir),
        num_items=evaluation.num_items,
        pass_at_1=evaluation.pass_at_1,
        greedy=evaluation.greedy,
    )
