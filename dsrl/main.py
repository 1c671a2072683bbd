"""The program on one page: read the command line, compose the config, build the stages, run them, report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.cli import app
from dsrl.core import broken_pipe

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dsrl.pipeline.state import PipelineState


def main() -> None:
    """`dsrl` and `python -m dsrl`."""
    from dsrl.core.signals import handle_termination

    handle_termination()
    try:
        code = run_command(sys.argv[1:])
        print(end="", flush=True)  # a closed pipe shows here, where it can still be handled
    except BrokenPipeError as error:
        broken_pipe.exit_quietly(error)
    sys.exit(code)


def run_command(arguments: list[str]) -> int:
    """Run one command line. Returns the exit code."""
    return app.dispatch(arguments, run_pipeline=launch)


def launch(overrides: list[str], *, plan: bool = False) -> int:
    """Compose the config with Hydra and run the job: once, or many times in a sweep. Returns the exit code."""

    def job(config: "DictConfig") -> float | None:
        """One job. Returns the trained model's pass@1, which a Hydra sweeper may optimise."""
        if plan:
            from dsrl.cli.plan import plan_run

            plan_run(config)
            return None
        state = run_job(config)
        trained = state.evaluation_trained if state else None
        return trained.pass_at_1.value if trained else None

    return app.run_with_hydra(job, overrides)


def run_job(config: "DictConfig") -> "PipelineState | None":
    """One job of Hydra's: a run, or with `checkpoints=` a run for each checkpoint of a folder (then None). Its folder's
    `status.json` tells how it ended, even if it fails before any work."""
    from hydra.core.hydra_config import HydraConfig

    from dsrl.pipeline.run_status import record_status

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    with record_status(run_dir):
        if config.get("checkpoints") is None:
            return run_experiment(config, run_dir)
        from dsrl.cli.evaluate_checkpoints import evaluate_checkpoints

        evaluate_checkpoints(config, run_dir, run_experiment)
        return None


def run_experiment(config: "DictConfig", run_dir: Path) -> "PipelineState":
    """One run, from the composed config to the finished state. Raises `UserError`."""
    from dsrl.cli.export import check_free, export_to
    from dsrl.pipeline.config import check_run, resolve, settings_of
    from dsrl.pipeline.experiment import build_pipeline, open_run
    from dsrl.pipeline.runner import run_stages

    values = resolve(config)
    settings = settings_of(values)
    check_run(values, settings)
    export_dir = Path(settings.export_dir).expanduser() if settings.export_dir is not None else None
    if export_dir is not None:
        check_free(export_dir, replace=True)
    pipeline, state = build_pipeline(values, settings)
    with open_run(values, settings, run_dir) as context:
        state = run_stages(pipeline, state, context, rounds=settings.rounds, stop_after=settings.stop_after)
        if export_dir is not None:
            export_to(context, export_dir)
    return state


if __name__ == "__main__":
    main()
