"""The program on one page: compose the config, build the objects, run the stages, say what came out."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core import broken_pipe
from dsrl.core.disk_space import refusal
from dsrl.core.errors import BudgetReached, UserError
from dsrl.core.resources import home

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dsrl.pipeline.config import Settings
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.stage import Stage
    from dsrl.pipeline.state import PipelineState


def main() -> None:
    """`dsrl` and `python -m dsrl`."""
    from dsrl.cli.app import dispatch
    from dsrl.core.signals import hear_termination

    hear_termination()
    try:
        code = dispatch(sys.argv[1:])
        print(end="", flush=True)  # here, where an error still finds somebody
    except BrokenPipeError as error:
        broken_pipe.give_up(error)
    sys.exit(code)


def launch(overrides: list[str], *, plan: bool = False) -> int:
    """Hand the command line to Hydra, which composes the config and calls `job` once or, in a sweep, many times."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    failures: list[int] = []
    composed: list[bool] = []

    def job(config: "DictConfig") -> float | None:
        """One run. Returns the trained model's pass@1, which a Hydra sweeper may optimise."""
        composed.append(True)
        try:
            if plan:
                look_ahead(config)
                return None
            state = recorded_experiment(config)
            if state is None:
                return None
        except UserError as error:
            failures.append(explain(error))
            return None
        except BrokenPipeError as error:
            broken_pipe.give_up(error)
        except OSError as error:  # said by us, before Hydra does
            failures.append(explain(refusal(error, "the run")))
            return None
        return state.evaluation_trained.pass_at_1.value if state.evaluation_trained else None

    sys.argv = [sys.argv[0], *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(home() / "conf"), config_name="config")(job)()
    except UserError:  # of a launcher, whose jobs run elsewhere
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if composed:  # not about the config, so not the user's
            raise
        return explain(UserError(plain(error), next_step=advice(str(error))))
    return max(failures, default=0)


def recorded_experiment(config: "DictConfig") -> "PipelineState | None":
    """One run whose folder says how it stands, also when it fails before any work; None of one that was many, a run for
    each checkpoint of a folder."""
    from hydra.core.hydra_config import HydraConfig

    from dsrl.pipeline.run_status import recorded

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    with recorded(run_dir):
        if config.get("checkpoints") is None:
            return experiment(config, run_dir)
        from dsrl.cli.evaluate_checkpoints import every_checkpoint

        every_checkpoint(config, run_dir, experiment)
        return None


def look_ahead(config: "DictConfig") -> None:
    """`dsrl plan`."""
    from dsrl.cli.plan import plan

    if config.get("checkpoints") is not None:
        raise UserError(
            "`dsrl plan` looks at one model", got=f"checkpoints={config.checkpoints}", next_step="take it out"
        )
    plan(config)


def experiment(config: "DictConfig", run_dir: Path) -> "PipelineState":
    """One run, from the composed config to the finished state."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from dsrl.cli.export import check_free, copied_out
    from dsrl.cli.overrides import refuse_idle_launcher
    from dsrl.forecast.run_forecast import foretell
    from dsrl.llm.price import price_warning
    from dsrl.pipeline import config as checked
    from dsrl.pipeline.runner import Keys, roots, run

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN:
        refuse_idle_launcher(hydra.overrides.hydra)
    values = checked.resolved(config)
    dials = checked.dials(values)
    checked.check_asked(values, hydra.overrides.task)
    if dials.pilot:
        raise UserError("pilot belongs to `dsrl plan`", got=f"pilot={dials.pilot}", next_step="dsrl plan pilot=10 ...")
    copy_to = Path(dials.export_dir).expanduser() if dials.export_dir is not None else None
    if copy_to is not None:
        check_free(copy_to, replace=True)
    pipeline, state = assemble(values, dials)
    keys = Keys(roots(state))
    with surroundings(values, dials, run_dir) as context:
        if warning := price_warning(values["pipeline"], dials.prices):
            context.progress.warn(warning)
        foretell(pipeline, state, context, keys, rounds=dials.rounds, stop_after=dials.stop_after)
        state = run(pipeline, state, context, keys=keys, rounds=dials.rounds, stop_after=dials.stop_after)
        if copy_to is not None:
            copied_out(context, copy_to)
        return state


def assemble(
    values: dict[str, Any], dials: "Settings", *, dry: bool = False
) -> tuple[dict[str, "Stage"], "PipelineState"]:
    """Build the stages and the state they start from, and check all that can be checked before any work. `dry`: not
    what only matters once there is work: keys, installed packages, the test set."""
    from dsrl.core.plugins import load_plugins
    from dsrl.llm.price import read_prices, with_prices
    from dsrl.pipeline import config as checked
    from dsrl.pipeline.stage import check_chain
    from dsrl.pipeline.state import PipelineState

    load_plugins(dials.plugins)
    if dials.prices is not None:
        values = with_prices(values, read_prices(Path(dials.prices).expanduser()))
    task = checked.build(values["task"], "task", dials.plugins)
    base = checked.build(values["model"], "model", dials.plugins) or None
    pipeline = {name: checked.build(node, name, dials.plugins) for name, node in values["pipeline"].items()}
    checked.check_stages(pipeline, dials.stop_after, dry=dry)
    check_chain(pipeline)
    checked.check_context(task, pipeline)
    checked.check_budget(dials.budget_usd, pipeline)
    if any("base" in stage.inputs for stage in pipeline.values()):
        checked.check_model(base, pipeline)
    checked.check_pictures(task, base, pipeline)
    if not dry and task.test is not None and any("test" in stage.inputs for stage in pipeline.values()):
        task.test.load(task.answer)
        task.test.check_images()
    return pipeline, PipelineState(task=task, base=base)


@contextmanager
def surroundings(values: dict[str, Any], dials: "Settings", run_dir: Path) -> Iterator["Context"]:
    """Open what a run needs, write down what it is, and at its end, however it ends, track and close it."""
    from dsrl.llm.ledger.ledger import Ledger
    from dsrl.llm.reply_cache.cache import ReplyCache
    from dsrl.pipeline import run_folder
    from dsrl.pipeline.config import build
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.progress.log_bridge import heard
    from dsrl.pipeline.progress.progress import Progress
    from dsrl.pipeline.store import Store

    store = Store(Path(dials.store).expanduser().absolute())
    store.open()
    context = Context(
        run_dir=run_dir,
        store=store,
        calls=ReplyCache(store.root / "calls"),
        progress=Progress(),
        ledger=Ledger(dials.budget_usd, dials.budget_tokens),
        accept_missing=dials.accept_missing,
    )
    tracking = build(values["tracking"], "tracking", dials.plugins)
    run_folder.begin(context, values, dials)
    tracking.start(context, values)
    status = "failed"
    try:
        with heard(context.progress):
            yield context
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except BrokenPipeError as error:
        status = "interrupted"
        broken_pipe.give_up(error)
    except BudgetReached:
        status = "budget"
        raise
    finally:
        try:
            status = run_folder.end(context, status)
            tracking.track(context, values, context.state, status)
        finally:
            context.close()


UNSAID = ("use +", "Full traceback", "\t_")
"""Advice to force a mistyped key in, a hint for developers, and files that are no choice."""


def plain(error: BaseException) -> str:
    """Hydra's message without what doesn't help here."""
    override = getattr(error, "override", None)  # of one that can't be parsed
    lines = [*([f"{override}: not an override"] if override else []), *filter(str.strip, str(error).splitlines())]
    return "\n  ".join(line for line in lines if not any(word in line for word in UNSAID))


def advice(message: str) -> str:
    """What to do about one of Hydra's complaints: the key that was probably meant, if there is one."""
    from difflib import get_close_matches

    from dsrl.pipeline.config import known_keys

    if "experiment/" in message:
        return "dsrl experiment ls lists the experiments there are"
    name = message.partition("Could not override '")[2].partition("'")[0]
    if name in known_keys():
        return f"`{name}` belongs to another pipeline: give pipeline=..., or its verb, such as dsrl evaluate"
    close = get_close_matches(name, known_keys(), 1) if name and "." not in name else []
    return f"did you mean `{close[0]}`?" if close else "dsrl --help lists groups and settings, --cfg job all keys"


def explain(error: UserError) -> int:
    """Print an error for a user; returns the exit code."""
    print(f"\ndsrl: {error}", file=sys.stderr)
    return error.exit_code


def interrupted(arguments: Sequence[str]) -> int:
    """Say how to go on after Ctrl-C or SIGTERM; returns the exit code."""
    from dsrl.core.signals import interrupted_code

    again = shlex.join(["dsrl", *arguments])
    print(f"\ninterrupted: everything received so far is kept; to go on:\n  {again}", file=sys.stderr)
    return interrupted_code()


if __name__ == "__main__":
    main()
