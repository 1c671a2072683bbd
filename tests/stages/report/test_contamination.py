"""The sections on contamination and diversity."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsrl.data.source import Source
from dsrl.data.task import Contamination
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.decontaminate import Decontaminate, Diversity
from dsrl.stages.evaluate import Compare
from dsrl.stages.report.contamination import contamination
from dsrl.stages.report.dataset import diversity
from dsrl.stages.report.headline import compare_figures, run_checks
from tests.stages.report.made import TASK, make_study
from tests.stages.report.test_report import HOSTILE, Page, page_of


def measured(folder: Path, policy: Any, items: int = 400) -> tuple[PipelineState, Context]:
    """A finished run with two selected samples in the test set, one of them followed by other text."""
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


def test_dropped_samples_are_shown_beside_their_items(tmp_path: Path) -> None:
    state, context = measured(tmp_path, "drop")
    view = contamination(state, context.metrics)
    assert view is not None
    assert "of 240 samples share text with 2 test items" in view.lead
    first = view.pairs[0]
    assert (first.rule, first.outcome, first.number) == ("identical", "dropped", 1)
    assert first.sample == first.item
    assert "clean items" in view.subset
    assert view.measures == ()
    page = page_of(state, context)
    ids = Page(page).ids
    assert (
        ids.index("labels")
        < ids.index("contamination")
        < ids.index("selection")
        < ids.index("diversity")
        < ids.index("training")
    )
    assert "<mark>" in page
    assert "<script>alert" not in page
    assert "&lt;/script&gt;" in page


def test_results_are_repeated_without_items_that_flagged_samples_share_text_with(tmp_path: Path) -> None:
    state, context = measured(tmp_path, "flag")
    view = contamination(state, context.metrics)
    assert view is not None
    assert "policy=flag" in view.lead
    assert {pair.outcome for pair in view.pairs} == {"kept"}
    assert "2 test items" in view.subset
    assert "398" in view.subset
    assert [name for name, _, _ in view.measures] == ["base model, pass@1", "trained model, pass@1", "change"]
    assert all(any(map(str.isdigit, clean)) for _, _, clean in view.measures)
    base, trained = state.evaluation_base, state.evaluation_trained
    assert base is not None
    check = run_checks(base, base, trained, compare_figures(context.metrics))[0]
    assert check.passed is False
    assert "2 test items share text with training samples" in check.words
    assert "Shares text with a test item" in page_of(state, context)


def test_a_run_without_a_check_says_so(tmp_path: Path) -> None:
    state, context = measured(tmp_path, "keep")
    view = contamination(state, context.metrics)
    assert view is not None
    assert "policy=keep" in view.lead
    assert (view.rules, view.pairs, view.subset) == ((), (), "")
    assert contamination(state, {}) is None


def test_diversity_is_shown_beside_the_test_set(tmp_path: Path) -> None:
    _, context = measured(tmp_path, "drop")
    view = diversity(context.metrics)
    assert view is not None
    assert [row.name for row in view.sets] == ["All samples", "Selected", "Test set"]
    assert (len(view.lengths), view.answers) == (3, ())
    context.metrics["diversity"]["answers"] = {"selected": {"A": 0.7, "B": 0.3}, "test": {"A": 0.5, "B": 0.5}}
    with_answers = diversity(context.metrics)
    assert with_answers is not None
    assert with_answers.lead.count("50.0\u202f%") == 2
    assert "70.0\u202f%" in with_answers.lead
    assert len(with_answers.answers) == 2
    assert diversity({}) is None
