"""The report in a real browser: two clicks lead from any row to its evidence, and no text of a model runs."""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.data.sample import new_sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import Report
from tests import pictured
from tests.stages.report.made import make_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000")  # fmt: skip
AXE_CORE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
HOSTILE = "<img src=x onerror=\"document.title='broken in'\"><script>document.title='broken in'</script>"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


def dom(page: Path, profile: Path, anchor: str = "") -> str:
    """The page after its script has run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", f"{page.as_uri()}{anchor}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def driven(page: Path, profile: Path, script: str) -> dict:
    """The object `outcome` after `script` has run in the page."""
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page.read_text(encoding="utf-8"))
    added = f"<script>const outcome = {{}};{script};document.body.dataset.outcome = JSON.stringify(outcome)</script>"
    copy = page.with_name("driven.html")
    copy.write_text(text.replace("</body>", f"{added}</body>"), encoding="utf-8")
    found = re.search(r'data-outcome="([^"]*)"', dom(copy, profile))
    assert found
    return json.loads(html.unescape(found[1]))


def made(tmp_path: Path, **changes) -> tuple[PipelineState, Path]:
    state, context = make_study(tmp_path, count=30)
    state = replace(state, **changes)
    Report()(state, context)
    return state, context.run_dir / "report.html"


TWO_CLICKS = """
const row = document.getElementById('row-' + id);
row.querySelector('button').click();
const opened = row.nextElementSibling;
outcome.facts = opened.querySelector('.facts').textContent;
for (const fold of opened.querySelectorAll('details')) {
  const shut = fold.querySelector('p.said').checkVisibility();
  fold.querySelector('summary').click();
  outcome[fold.querySelector('summary').firstChild.textContent] = [shut, fold.textContent];
}
"""


def test_two_clicks_lead_from_a_row_to_its_evidence(tmp_path: Path):
    state, page = made(tmp_path)
    sample = state.chosen(state.selected)[0]
    found = driven(page, tmp_path / "profile", f"const id = '{sample.id}';{TWO_CLICKS}")
    facts = found.pop("facts")
    assert "Selected for training, rank 1 of" in facts
    assert f"of {sample.score.num_rollouts} replies correct" in facts
    assert ("Rewritten" in facts) == any(sample.id in (other.parent_id, sample.parent_id) for other in state.samples)
    assert set(found) == {
        "Passage",
        "Generation: prompt",
        "Generation: reply",
        "Votes: prompt",
        "Votes: replies",
    }
    assert not any(visible_before for visible_before, _ in found.values())
    assert "On market day" in found["Passage"][1]
    assert "# Passage" in found["Generation: prompt"][1]
    assert sample.input in found["Generation: reply"][1]
    assert found["Votes: replies"][1].count("I count to") == sample.votes.asked
    assert f"read as {sample.answer}" in found["Votes: replies"][1]


FILTERS = """
const rows = () => document.querySelectorAll('tr.row').length;
const set = (id, value, event) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event(event));
};
outcome.all = rows();
set('outcome', 'rejected', 'change'); outcome.rejected = rows();
set('outcome', 'no majority', 'change'); outcome.reason = rows();
set('outcome', '', 'change'); set('origin', 'harder', 'change'); outcome.harder = rows();
set('origin', '', 'change'); set('search', 'ZOE  marbles', 'input'); outcome.search = rows();
set('search', 'no such words', 'input'); outcome.nothing = rows();
outcome.found = document.getElementById('found').textContent;
set('search', '', 'input');
const rates = () => [...document.querySelectorAll('tr.row td.rate')].map((cell) => cell.textContent);
const header = () => document.querySelector('thead th.rate');
header().querySelector('button').click();
outcome.ascending = rates();
outcome.order = header().getAttribute('aria-sort');
header().querySelector('button').click();
outcome.descending = rates();
"""


def test_rows_are_filtered_searched_and_sorted(tmp_path: Path):
    state, page = made(tmp_path)
    found = driven(page, tmp_path / "profile", FILTERS)
    assert found["all"] == len(state.samples) + len(state.rejected)
    assert found["rejected"] == len(state.rejected)
    assert found["reason"] == sum(candidate.reason == "no majority" for candidate in state.rejected)
    assert found["harder"] == sum(sample.origin == "harder" for sample in state.samples)
    texts = [row.input or "" for row in (*state.samples, *state.rejected)]
    assert found["search"] == sum("Zoe" in text and "marbles" in text for text in texts)
    assert (found["nothing"], found["found"], found["order"]) == (0, "0 rows", "ascending")
    unknown = ["\u2013"] * len(state.rejected)
    rates = sorted(round(100 * sample.score.value) for sample in state.samples)
    assert found["ascending"][len(rates) :] == found["descending"][len(rates) :] == unknown
    for order, expected in (("ascending", rates), ("descending", rates[::-1])):
        assert [int(rate.split("\u202f")[0]) for rate in found[order][: len(rates)]] == pytest.approx(expected, abs=1)


PARENT = """
document.getElementById('row-' + child).querySelector('button').click();
document.getElementById('row-' + child).nextElementSibling.querySelector('.facts button').click();
outcome.open = [...document.querySelectorAll('.open[aria-expanded=true]')].map((button) => button.closest('tr').id);
"""


def test_a_rewrite_leads_to_its_parent(tmp_path: Path):
    state, page = made(tmp_path)
    child = next(sample for sample in state.samples if sample.parent_id)
    found = driven(page, tmp_path / "profile", f"const child = '{child.id}';{PARENT}")
    assert found["open"] == [f"row-{child.parent_id}"]


def test_an_address_opens_its_row_and_no_text_of_a_model_runs(tmp_path: Path):
    sample = new_sample("counting", HOSTILE, HOSTILE, "initial", solution=HOSTILE)
    _, page = made(tmp_path, samples=(sample,), selected=(), control=())
    text = dom(page, tmp_path / "profile", f"#row-{sample.id}")
    assert 'aria-expanded="true"' in text
    assert "<title>counting" in text
    assert "<img" not in text
    assert html.escape(HOSTILE, quote=False) in text


PICTURES = """
const opened = (id) => {
  document.getElementById('row-' + id).querySelector('button').click();
  return document.getElementById('row-' + id).nextElementSibling;
};
const images = (place) => Promise.all([...place.querySelectorAll('img')].map((image) => image.decode().then(
  () => [image.alt, image.naturalWidth, image.naturalHeight])));
const unfold = (place) => [...place.querySelectorAll('details')].map((fold) => fold.textContent);
const page = [opened(shown), opened(lost), document.getElementById('variants')];
outcome.absent = page[1].querySelector('figure').textContent;
outcome.question = page[0].querySelector('.question-text').textContent;
outcome.line = document.getElementById('row-' + shown).querySelector('button').textContent;
outcome.replies = unfold(page[0]).filter((text) => text.startsWith('Replies'));
Promise.all(page.map(images)).then((found) => {
  [outcome.shown, outcome.lost, outcome.variants] = found;
  document.body.dataset.outcome = JSON.stringify(outcome);
});
"""


def test_images_are_decoded_and_a_missing_one_has_a_reason(tmp_path: Path):
    state, where = pictured.make_study(tmp_path)
    variant, lost = state.samples[4], state.samples[1]
    where.images.path(lost.images[0]).unlink()
    Report()(state, where)
    where.close()
    names = f"const shown = '{variant.id}', lost = '{lost.id}';"
    found = driven(where.run_dir / "report.html", tmp_path / "profile", names + PICTURES)
    assert found["shown"] == [["image 1", 96, 64]]
    assert found["lost"] == []
    assert found["absent"].startswith("image 1, 96 \u00d7 64: no longer in the store")
    assert found["question"].startswith("[image 1]\nHow many discs")
    assert found["line"].startswith("How many discs")
    assert found["variants"] == [["image 1", 96, 64], ["image 1", 96, 64], ["image 2", 96, 64]]
    (replies,) = found["replies"]
    assert replies.count("read as 1") == 4


NARROW = """
const frame = document.createElement('iframe');
frame.width = width;
frame.onload = () => {
  const page = frame.contentDocument;
  page.querySelectorAll('details').forEach((fold) => { fold.open = true; });
  page.querySelector('.open').click();
  outcome.width = page.documentElement.scrollWidth;
  document.body.dataset.outcome = JSON.stringify(outcome);
};
frame.srcdoc = '<!doctype html>' + document.documentElement.outerHTML.replace(/<script>const outcome.*/s, '');
document.body.append(frame);
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_never_wider_than_the_window(tmp_path: Path, width: int):
    """Also with a store at a path of 170 characters, which has no place to break."""
    paths = {f"evaluate_{role}/predictions.parquet": Path("/") / ("x" * 170) / role for role in ("base", "trained")}
    _, page = made(tmp_path, files=paths)
    assert driven(page, tmp_path / "profile", f"const width = {width};{NARROW}")["width"] <= width


def test_invisible_and_direction_characters_are_spelled_out(tmp_path: Path):
    text = "\u202eHow many\u200b apples? \U0001f468\u200d\U0001f469"
    sample = new_sample("counting", text, "1", "initial")
    _, page = made(tmp_path, samples=(sample,), selected=(), control=())
    question = "outcome.question = document.querySelector('.question-text').textContent"
    found = driven(page, tmp_path / "profile", f"document.querySelector('.open').click();{question}")
    assert found["question"] == "\u27e8U+202E\u27e9How many\u27e8U+200B\u27e9 apples? \U0001f468\u200d\U0001f469"


AUDIT = """
document.querySelectorAll('details').forEach((fold) => { fold.open = true; });
document.querySelector('.open').click();
axe.run(document).then((found) => {
  outcome.violations = found.violations.map((rule) => [rule.id, rule.nodes.map((node) => node.target.join(' '))]);
  document.body.dataset.outcome = JSON.stringify(outcome);
});
"""


@pytest.mark.skipif(not AXE_CORE.is_file(), reason="needs axe-core: npm install axe-core, or AXE_CORE=axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_passes_axe(tmp_path: Path, scheme: str):
    _, page = made(tmp_path)
    if scheme == "dark":
        text = page.read_text(encoding="utf-8").replace("@media (prefers-color-scheme: dark)", "@media all")
        page.write_text(text, encoding="utf-8")
    script = f"{AXE_CORE.read_text(encoding='utf-8')};{AUDIT}"
    assert driven(page, tmp_path / "profile", script)["violations"] == []
