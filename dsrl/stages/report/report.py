"""The last stage: everything that is known about the run, on one page."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting
from dsrl.stages.report.audit import audited
from dsrl.stages.report.contamination import clean
from dsrl.stages.report.cost import cost
from dsrl.stages.report.difficulty import difficulty
from dsrl.stages.report.diversity import variety
from dsrl.stages.report.forecast import forecast
from dsrl.stages.report.funnel import funnel
from dsrl.stages.report.headline import headline
from dsrl.stages.report.labels import labels
from dsrl.stages.report.pictures import Pictures
from dsrl.stages.report.provenance import provenance
from dsrl.stages.report.sample_browser import browser
from dsrl.stages.report.selection import selection
from dsrl.stages.report.training import training
from dsrl.stages.report.variants import variants

if TYPE_CHECKING:
    from jinja2 import Environment

    from dsrl.pipeline.context import Context

PAGE = Path(__file__).parent / "page"
NAME = "report.html"


@component("stages.report")
class Report(Stage):
    """Writes `report.html` into the run folder. It needs no network and no other file."""

    name: ClassVar[str] = "report"
    inputs = ()
    outputs = ()
    stored: ClassVar[bool] = False
    runs_after_stop: ClassVar[bool] = True

    max_rows: int = Field(default=2000, ge=1)
    """Rows in the sample browser: all selected samples first, then a seeded draw of the others."""
    max_megabytes: float = Field(default=12.0, gt=0)
    """Prompts and replies that the page holds, in millions of characters; rows beyond that are shown without."""
    thumbnail: int = Field(default=256, ge=0)
    """Longest side of a picture on the page, in pixels; 0: none is shown."""
    pictures_megabytes: float = Field(default=6.0, ge=0)
    """Pictures that the page holds, in millions of characters; those beyond that are named only."""

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        page = self.page(state, context)
        temporary = context.run_dir / f".{NAME}"
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(context.run_dir / NAME)
        return state.add(figures={"page": NAME})

    def page(self, state: PipelineState, context: "Context") -> str:
        """The whole page as text; the figures of its labels go into `metrics.json` too."""
        metrics = context.metrics
        pictures = Pictures(context.images, self.thumbnail, round(self.pictures_megabytes * 1_000_000))
        pairs = variants(state, metrics, pictures)
        characters = round(self.max_megabytes * 1_000_000)
        rows = browser(state, context.calls, pictures, max_rows=self.max_rows, max_characters=characters)
        if pairs and pairs.lengths:
            metrics["replies"] = pairs.block()
        votes = labels(state.samples, state.rejected, context.calls, audited(metrics, context.store.root))
        if votes:
            metrics["labels"] = votes.measures.block(votes.audit)
        return render(
            title=str(metrics.get("name") or state.task.name),
            about=about(state, metrics),
            gaps=gaps(state),
            warnings=tuple(context.progress.warnings),
            headline=headline(state, metrics),
            funnel=funnel(metrics),
            difficulty=difficulty(state.samples),
            variants=pairs,
            labels=votes,
            clean=clean(state, metrics),
            selection=selection(state, metrics),
            variety=variety(metrics),
            training=training(state, metrics),
            cost=cost(metrics, context.store.root),
            forecast=forecast(metrics),
            browser=rows,
            provenance=provenance(context.run_dir, metrics),
            task=state.task,
        )


def about(state: PipelineState, metrics: dict[str, Any]) -> dict[str, str]:
    """Who took part; what is not known is left out."""
    named = {
        "Task": state.task.name,
        "Base model": state.base.name if state.base else metrics.get("model"),
        "Teacher": metrics.get("teacher"),
        "Seed": metrics.get("seed"),
        "Started": formatting.moment(metrics.get("started")),
        "Rounds": len(metrics["rounds"]) + 1 if metrics.get("rounds") else None,
    }
    return {name: str(value) for name, value in named.items() if value not in (None, "")}


def gaps(state: PipelineState) -> tuple[str, ...]:
    """What this run did not do, in words."""
    missing = (
        (not any(sample.score for sample in state.samples), "no pass rates"),
        (not state.selected, "no selection"),
        (state.trained is None, "no trained model"),
        (state.evaluation_base is None and state.evaluation_trained is None, "no evaluation on a test set"),
    )
    return tuple(words for lacks, words in missing if lacks)


def render(**views: Any) -> str:
    """Fill in the page. Every value is escaped; the script is allowed by its own hash and nothing else may run."""
    script = (PAGE / "report.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment().get_template("report.html.jinja")
    return template.render(script_hash=allowed, **raw_parts(script), **views)


def raw_parts(script: str) -> dict[str, Any]:
    """The page's own style and script, which are not to be escaped."""
    from markupsafe import Markup

    style = (PAGE / "report.css").read_text(encoding="utf-8")
    return {"style": Markup(style), "script": Markup(script)}  # noqa: S704


def environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters.update(percent=formatting.percent, count=formatting.count, figure=formatting.figure)
    return found
