"""The sections on clean data and variety, by the words a reader sees."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsrl.data.source import Source
from dsrl.data.task import Contamination
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.decontaminate import Decontaminate, Diversity
from dsrl.stages.evaluate import Compare
from dsrl.stages.report.checks import checks
from dsrl.stages.report.contamination import clean
from dsrl.stages.report.diversity import variety
from tests.stages.report.made import TASK, make_study
from tests.stages.report.test_report import HOSTILE, Page, page_of


def measured(folder: Path, policy: Any, items: int = 400) -> tuple[PipelineState, Context]:
    """A finished run of which two selected samples stand in the test set, one of them with other numbers."""
    state, context = make_study(folder)
    context.scratch = folder / "scratch"
    chosen = state.chosen(state.selected)
    texts = [
        chosen[0].input,
        f"{chosen[1].input} {HOSTILE}",
        *(f"Item {number} of none?" for number in range(items - 2)),
    ]
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps({"Input": text, "Output": "#### 1"}) + "\n" for text in texts))
    rules = Contamination(policy=policy, renamed=None, reworded=None)  # these stories are all made by one pattern
    task = replace(TASK, test=Source(path=str(path)), contamination=rules)
    state = Decontaminate(contamination=rules)(replace(state, task=task), context)
    context.metrics["decontaminate"] = state.figures
    kept = {sample.id for sample in state.samples}
    state = replace(
        state,
        selected=tuple(identifier for identifier in state.selected if identifier in kept),
        control=tuple(identifier for identifier in state.control if identifier in kept),
    )
    context.metrics["diversity"] = Diversity(draws=50)(state, context).figures
    found = Compare(resamples=100)(state, context).figures
    context.metrics["stages"]["compare"] = found
    context.metrics["evaluate"] = {"clean": found["clean"], "difference": found["difference"]}
    return state, context


def test_what_is_left_out_is_shown_beside_its_item(tmp_path: Path) -> None:
    state, context = measured(tmp_path, "drop")
    view = clean(state, context.metrics)
    assert view is not None
    assert re.match(
        r"\d of 240 samples share text with 2 test items. What shares text with one was left out.", view.lead
    )
    first = view.pairs[0]
    assert (first.rule, first.fate, first.number) == ("the same text", "left out", 1)
    assert first.sample == first.item
    assert view.subset == "No training sample shares text with a test item: the result above is on clean items."
    assert view.measures == ()
    page = page_of(state, context)
    ids = Page(page).ids
    assert (
        ids.index("labels") < ids.index("clean") < ids.index("selection") < ids.index("variety") < ids.index("training")
    )
    assert "<mark>" in page
    assert "<script>alert" not in page
    assert "&lt;/script&gt;" in page


def test_what_is_flagged_is_measured_without(tmp_path: Path) -> None:
    state, context = measured(tmp_path, "flag")
    view = clean(state, context.metrics)
    assert view is not None
    assert "marked and kept" in view.lead
    assert {pair.fate for pair in view.pairs} == {"kept"}
    assert view.subset == "2 test items share text with a training sample; the models once more on the other 398:"
    names = [row.name for row in view.measures]
    assert names == ["base model, pass@1", "trained model, pass@1", "change"]
    assert all(re.search(r"\d", row.clean) for row in view.measures)
    told = checks(state, state.evaluation_base, {}, context.metrics["evaluate"]["clean"])[0]  # type: ignore[arg-type]
    assert told.fine is False
    assert "2 test items share text with training samples; without them the change is +" in told.words
    assert "Shares with a test item" in page_of(state, context)


def test_who_does_not_look_is_told_so(tmp_path: Path) -> None:
    state, context = measured(tmp_path, "keep")
    view = clean(state, context.metrics)
    assert view is not None
    assert view.lead.startswith("Samples were not held against the test set")
    assert (view.rows, view.pairs, view.subset) == ((), (), "")
    assert clean(state, {}) is None


def test_variety_is_told_beside_the_test_set(tmp_path: Path) -> None:
    _, context = measured(tmp_path, "drop")
    view = variety(context.metrics)
    assert view is not None
    assert [row.name for row in view.rows] == ["All samples", "Selected", "Test set"]
    assert (len(view.lengths), view.answers) == (3, ())
    context.metrics["diversity"]["answers"] = {"selected": {"A": 0.7, "B": 0.3}, "test": {"A": 0.5, "B": 0.5}}
    told = variety(context.metrics)
    assert told is not None
    assert told.lead.replace("\u202f", " ") == (
        "A is right in 70.0 % of the selected samples, 50.0 % in the test set; evenly spread it would be 50.0 %."
    )
    assert len(told.answers) == 2
    assert variety({}) is None
