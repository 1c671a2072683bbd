"""From a checked config to stages that can run, and what a run needs around them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import BudgetReached
from dsrl.core.plugins import load_plugins
from dsrl.pipeline import config, run_folder
from dsrl.pipeline.context import Context
from dsrl.pipeline.stage import Stage, check_chain
from dsrl.pipeline.state import PipelineState

if TYPE_CHECKING:
    from dsrl.pipeline.config import Settings


def build_pipeline(
    values: dict[str, Any], settings: "Settings", *, dry: bool = False
) -> tuple[dict[str, Stage], PipelineState]:
    """Build the stages and the state that they start from, and check all that can be checked before any work.

    `dry` skips what only matters once there is work to do: API keys, installed packages, the test set.
    Raises `UserError`.
    """
    from dsrl.llm.price import read_prices, with_prices

    load_plugins(settings.plugins)
    if settings.prices is not None:
        values = with_prices(values, read_prices(Path(settings.prices).expanduser()))
    task = config.build(values["task"], "task", settings.plugins)
    base = config.build(values["model"], "model", settings.plugins) or None
    pipeline = {name: config.build(node, name, settings.plugins) for name, node in values["pipeline"].items()}
    config.check_stages(pipeline, settings.stop_after, dry=dry)
    check_chain(pipeline)
    config.check_context(task, pipeline)
    config.check_budget(settings.budget_usd, pipeline)
    if any("base" in stage.inputs for stage in pipeline.values()):
        config.check_model(base, pipeline)
    config.check_images(task, base, pipeline)
    if not dry and task.test is not None and any("test" in stage.inputs for stage in pipeline.values()):
        task.test.load(task.answer)
        task.test.check_images()
    return pipeline, PipelineState(task=task, base=base)


def check_elsewhere(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Check the config of a run that happens on another machine: build everything, open nothing. API keys, test sets
    and packages are checked where the run happens. Raises `UserError`."""
    config.check_overrides(values, overrides)
    config.build(values["tracking"], "tracking")
    build_pipeline(values, config.settings_of(values), dry=True)


@contextmanager
def open_run(values: dict[str, Any], settings: "Settings", run_dir: Path) -> Iterator[Context]:
    """Open what a run needs, write down its config, and track and close it at the end, however it ends."""
    from dsrl.core import broken_pipe
    from dsrl.llm import Ledger, ReplyCache
    from dsrl.llm.price import price_warning
    from dsrl.pipeline.progress.log_bridge import forward_logs
    from dsrl.pipeline.progress.progress import Progress
    from dsrl.pipeline.store import Store

    store = Store(Path(settings.store).expanduser().absolute())
    store.open()
    context = Context(
        run_dir=run_dir,
        store=store,
        reply_cache=ReplyCache(store.root / "calls"),
        progress=Progress(),
        ledger=Ledger(settings.budget_usd, settings.budget_tokens),
        accept_missing=settings.accept_missing,
    )
    tracking = config.build(values["tracking"], "tracking", settings.plugins)
    run_folder.begin(context, values, settings)
    tracking.start(context, values)
    status = "failed"
    try:
        with forward_logs(context.progress):
            if warning := price_warning(values["pipeline"], settings.prices):
                context.progress.warn(warning)
            yield context
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except BrokenPipeError as error:
        status = "interrupted"
        broken_pipe.exit_quietly(error)
    except BudgetReached:
        status = "budget"
        raise
    finally:
        try:
            status = run_folder.end(context, status)
            tracking.track(context, values, context.state, status)
        finally:
            context.close()
