import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dsrl.data.sample import Rejected
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store
from dsrl.stages.report import Report
from tests.stages.report.made import TASK, make_study

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script> & \u2028 </textarea>"
SECTIONS = (
    "result",
    "warnings",
    "funnel",
    "difficulty",
    "labels",
    "selection",
    "training",
    "cost",
    "samples",
    "provenance",
)


class Page(HTMLParser):
    """Tags, ids and outside references of a page; fails on unclosed elements."""

    VOID = ("meta", "input", "img", "br", "link", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("src", "href", "action", "data") if name in given]
        assert not [name for name in given if name.startswith("on")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(state: PipelineState, context: Context, **fields) -> str:
    after = Report(**fields)(state, context)
    assert after.figures["page"] == "report.html"
    assert after.samples == state.samples
    return (context.run_dir / "report.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_finished_run_has_every_section_in_order(tmp_path: Path):
    page = Page(page_of(*make_study(tmp_path)))
    assert [identifier for identifier in page.ids if identifier in SECTIONS] == list(SECTIONS)


def test_the_page_refers_to_nothing_outside(tmp_path: Path):
    text = page_of(*make_study(tmp_path))
    page = Page(text)
    assert page.links == []
    assert not {"link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert "@import" not in text
    assert not re.search(r"url\(|https?://|fetch\(|XMLHttpRequest|innerHTML|eval\(", text)


def test_only_the_page_s_own_script_may_run(tmp_path: Path):
    text = page_of(*make_study(tmp_path))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(scripts[-1].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{allowed}'" in text


def test_texts_written_by_models_stay_text(tmp_path: Path):
    state, context = make_study(tmp_path, count=4)
    sample = state.samples[0].replace(
        messages=(replace(state.samples[0].messages[0], content=HOSTILE),), answer=HOSTILE, solution=HOSTILE
    )
    rejected = Rejected(stage="generate", reason=HOSTILE, detail=HOSTILE, input=HOSTILE, answer=HOSTILE)
    context.metrics.update(name=HOSTILE, teacher=HOSTILE, model=HOSTILE)
    context.metrics["rows"]["generate"]["rejected"] = {HOSTILE: 3}
    context.progress.warnings.append(HOSTILE)
    state = replace(state, samples=(sample, *state.samples[1:]), rejected=(rejected,), selected=(), control=())
    text = page_of(state, context)
    page = Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert any(HOSTILE in words for words in page.words)
    rows = {row["id"]: row for row in data_of(text)["rows"]}
    assert rows[sample.id]["question"] == HOSTILE
    assert rows["rejected-1"]["reason"] == HOSTILE


@pytest.mark.parametrize(
    ("changes", "gone", "words"),
    [
        ({"trained": None, "evaluation_trained": None, "files": {}}, {"training"}, "training"),
        ({"evaluation_base": None, "evaluation_trained": None}, {"result"}, "evaluation on a test set"),
        ({"selected": (), "control": ()}, {"selection"}, "selection"),
        ({"samples": (), "rejected": (), "selected": (), "control": ()}, {"samples", "difficulty"}, "pass rates"),
    ],
)
def test_missing_parts_are_named_and_have_no_section(tmp_path: Path, changes, gone, words):
    state, context = make_study(tmp_path, count=8)
    context.metrics["stages"] = {}
    text = page_of(replace(state, **changes), context)
    page = Page(text)
    assert not gone & set(page.ids)
    assert re.search(f"Not part of this run: [^.]*{words}", text)
    assert "<figure>\n  </figure>" not in text


def test_an_empty_run_still_gets_a_page(tmp_path: Path):
    store = Store(tmp_path / "store")
    _study, context = make_study(tmp_path, count=1)
    bare = Context(run_dir=tmp_path, store=store, reply_cache=context.reply_cache, progress=Progress())
    page = Page(page_of(PipelineState(task=TASK), bare))
    assert [identifier for identifier in page.ids if identifier in SECTIONS] == ["provenance"]


def test_one_model_alone_is_not_compared(tmp_path: Path):
    state, context = make_study(tmp_path, count=4)
    context.metrics["stages"]["compare"] = {"overlap": {}}
    text = page_of(replace(state, trained=None, evaluation_trained=None), context)
    assert "no comparison" in text
    assert "trained model, pass@1" not in text


def test_samples_without_pass_rates_can_be_selected(tmp_path: Path):
    state, context = make_study(tmp_path, count=6)
    samples = tuple(sample.replace(score=None, probe=None) for sample in state.samples)
    text = page_of(replace(state, samples=samples), context)
    page = Page(text)
    assert "difficulty" not in page.ids
    assert "selection" in page.ids


def test_the_page_replaces_an_old_one(tmp_path: Path):
    state, context = make_study(tmp_path, count=2)
    (context.run_dir / "report.html").write_text("old")
    assert page_of(state, context).rstrip().endswith("</html>")
    assert [path.name for path in context.run_dir.iterdir() if path.name.startswith(".")] == []
