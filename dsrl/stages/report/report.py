"""The last stage: the run on one page, `report.html`."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting
from dsrl.stages.report.audit import find_audit
from dsrl.stages.report.contamination import contamination
from dsrl.stages.report.cost import cost
from dsrl.stages.report.dataset import difficulty, diversity, selection
from dsrl.stages.report.headline import headline
from dsrl.stages.report.labels import labels
from dsrl.stages.report.overview import funnel, missing_parts, participants, run_origin
from dsrl.stages.report.sample_browser import browser
from dsrl.stages.report.thumbnails import Thumbnails
from dsrl.stages.report.training import training
from dsrl.stages.report.variants import variants

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context

PAGE = Path(__file__).parent / "page"
NAME = "report.html"
MILLION = 1_000_000


@component("stages.report")
class Report(Stage):
    """Writes `report.html` into the run folder. The page needs no network and no other file."""

    name: ClassVar[str] = "report"
    inputs = ()
    outputs = ()
    stored: ClassVar[bool] = False
    runs_after_stop: ClassVar[bool] = True

    max_rows: int = Field(default=2000, ge=1)
    """Rows in the sample browser: all selected samples, then a seeded random draw of the others."""
    max_megabytes: float = Field(default=12.0, gt=0)
    """Millions of characters of prompts and replies on the page; further rows are shown without."""
    thumbnail: int = Field(default=256, ge=0)
    """Longest side of an image on the page, in pixels; 0 shows none."""
    pictures_megabytes: float = Field(default=6.0, ge=0)
    """Millions of characters of images on the page; further ones are named only."""

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        page, figures = self.page(state, context)
        temporary = context.run_dir / f".{NAME}"
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(context.run_dir / NAME)
        return state.add(figures={"page": NAME, **figures})

    def summary_metrics(self, name: str, state: PipelineState) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        return {block: state.figures[block] for block in ("replies", "labels") if block in state.figures}

    def page(self, state: PipelineState, context: "Context") -> tuple[str, dict[str, Any]]:
        """The page as text, and the figures that are computed for it alone, by their block of `metrics.json`."""
        metrics = context.metrics
        thumbnails = Thumbnails(context.images, self.thumbnail, round(self.pictures_megabytes * MILLION))
        variant_section = variants(state, metrics, thumbnails)
        label_section = labels(
            state.samples, state.rejected, context.reply_cache, find_audit(metrics, context.store.root)
        )
        page = render(
            title=str(metrics.get("name") or state.task.name),
            participants=participants(state, metrics),
            missing=missing_parts(state),
            warnings=tuple(context.progress.warnings),
            headline=headline(state, metrics),
            funnel=funnel(metrics),
            difficulty=difficulty(state.samples),
            variants=variant_section,
            labels=label_section,
            contamination=contamination(state, metrics),
            selection=selection(state, metrics),
            diversity=diversity(metrics),
            training=training(state, metrics),
            cost=cost(metrics, context.store.root),
            browser=browser(
                state,
                context.reply_cache,
                thumbnails,
                max_rows=self.max_rows,
                max_characters=round(self.max_megabytes * MILLION),
            ),
            origin=run_origin(context.run_dir, metrics),
            task=state.task,
        )
        figures: dict[str, Any] = {}
        if variant_section and variant_section.lengths:
            figures["replies"] = variant_section.metrics()
        if label_section:
            figures["labels"] = label_section.figures.metrics(label_section.audit)
        return page, figures


def render(**views: Any) -> str:
    """Fill in the template. Every value is escaped; the content security policy allows only the page's own script, by
    its hash."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=formatting.percent,
        count=formatting.count,
        significant=formatting.significant,
        visible=formatting.show_invisible,
    )
    script = (PAGE / "report.js").read_text(encoding="utf-8")
    style = (PAGE / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        **views,
    )
