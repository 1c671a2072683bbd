"""One run of the pipeline `evaluate` for each checkpoint, one after the other, and a table of what they came to."""

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
    "To choose a checkpoint by this table is to choose it on the test set: the best of several looks better than it\n"
    "is, and a gain over the base model with it. Choose on held-out samples (train.keep=best), or say that you did not."
)


@dataclass(frozen=True)
class Row:
    """What one checkpoint came to: a row of the table."""

    step: int | None
    path: str
    run: str
    """Folder of its run."""
    num_items: int | None = None
    pass_at_1: Estimate | None = None
    greedy: Estimate | None = None
    fault: str = ""
    """Why it was not measured."""


def evaluate_checkpoints(
    config: "DictConfig", run_dir: Path, run: "Callable[[DictConfig, Path], PipelineState]"
) -> None:
    """Measure all that are asked for, each in a run folder of its own; what is in the store is used again. Raises
    `StageFailed` at the end if some could not be measured."""
    wanted = _wanted(config.checkpoints)
    if config.model.get("path") is None:
        raise UserError("checkpoints: which folder are they in?", next_step="model=hf model.path=FOLDER")
    folder = Path(config.model.path).expanduser()
    chosen = checkpoints(folder, wanted)
    print(f"{len(chosen)} checkpoints in {folder}: {', '.join(one.name for one in chosen)}", flush=True)
    rows: list[Row] = []
    for one in chosen:
        rows.append(_measured(one, config, run_dir / one.name, run))
        write_json(run_dir / TABLE, {"checkpoints": [asdict(row) for row in rows], "caution": CAUTION})
    print("\n".join(["", *table(rows), "", CAUTION, f"\ntable  {run_dir / TABLE}"]))
    if broken := [row for row in rows if row.fault]:
        raise StageFailed(
            f"{len(broken)} of {len(rows)} checkpoints could not be measured",
            got="; ".join(f"{row.path}: {row.fault}" for row in broken),
            next_step="mend or remove them, and run the same command: the others are in the store",
        )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Step by step: pass@1 and greedy with their intervals, or what is wrong."""
    yield f"{'step':>8}  {'pass@1':<26}{'greedy':<26}items"
    for row in rows:
        step = "last" if row.step is None else str(row.step)
        if row.pass_at_1 is None or row.greedy is None:
            yield f"{step:>8}  not measured: {row.fault}"
            continue
        shares = "".join(f"{interval(one.value, one.low, one.high):<26}" for one in (row.pass_at_1, row.greedy))
        yield f"{step:>8}  {shares}{row.num_items}"


def _wanted(value: Any) -> list[int] | None:
    """The steps that are asked for; None: all."""
    if value == "all":
        return None
    steps = [value] if isinstance(value, int) else list(value) if not isinstance(value, str) else []
    if not steps or not all(isinstance(step, int) for step in steps):
        raise UserError("checkpoints: which ones?", got=value, allowed="all, or steps such as [100,200]")
    return steps


def _measured(
    one: Checkpoint, config: "DictConfig", run_dir: Path, run: "Callable[[DictConfig, Path], PipelineState]"
) -> Row:
    print(f"\n{one.name}: {one.fault or one.path}", flush=True)
    if one.fault:
        return Row(one.step, str(one.path), "", fault=one.fault)
    try:
        evaluation = run(_alone(config, one), run_dir).evaluation_base
    except BudgetReached:
        raise
    except UserError as error:  # of this model alone; the others may do
        return Row(one.step, str(one.path), str(run_dir), fault=str(error).splitlines()[0])
    return _row(one, run_dir, evaluation)


def _alone(config: "DictConfig", one: Checkpoint) -> "DictConfig":
    """The config of a run that measures this one."""
    own = config.copy()
    name = config.name
    own.checkpoints = None
    own.model.path = str(one.path)
    own.name = f"{name}.{one.name}"
    return own


def _row(one: Checkpoint, run_dir: Path, evaluation: Evaluation | None) -> Row:
    if evaluation is None:
        return Row(one.step, str(one.path), str(run_dir), fault="the task has no test set")
    return Row(
        step=one.step,
        path=str(one.path),
        run=str(run_dir),
        num_items=evaluation.num_items,
        pass_at_1=evaluation.pass_at_1,
        greedy=evaluation.greedy,
    )
