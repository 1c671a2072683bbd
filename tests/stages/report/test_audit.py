import csv
import io
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.cli.audit import labelled_entries, read_samples
from dsrl.core.errors import UserError
from dsrl.core.parquet import write_table
from dsrl.data.sample import Message, Sample
from dsrl.main import run_command
from dsrl.pipeline.store import Manifest, Store
from dsrl.stages.report import Report, audit
from dsrl.stages.report.audit import (
    allocate_rows,
    audit_path,
    draw_stratified,
    estimate_error,
    guard_cell,
    read_sheet,
    stratum_of,
    stratum_sizes,
    write_sheet,
)
from tests.stages.report.made import make_study

Say = Callable[..., str]
SOURCE = "generate/0123abcd"


def fill(path: Path, judge: Callable[[int], str], **changed: str) -> None:
    """Fill in the column `correct` row by row; `changed` overwrites other columns in all rows."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    text = io.StringIO()
    table = csv.DictWriter(text, audit.COLUMNS, lineterminator="\r\n")
    table.writeheader()
    table.writerows({**row, "correct": judge(number), **changed} for number, row in enumerate(rows))
    path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    return make_study(tmp_path)[0].samples


@pytest.fixture
def store(tmp_path: Path, samples: tuple[Sample, ...]) -> Store:
    """A store with all samples from `generate`, and a hundred of them from an older run."""
    found = Store(tmp_path / "store")
    found.open()
    for key, rows in (("aaaa", samples[:100]), ("0123abcd", samples)):
        scratch = found.scratch("generate", key)
        write_table(scratch / "samples.parquet", rows, Sample)
        flow = {"in": len(rows), "out": len(rows)}
        found.commit(scratch, Manifest("generate", key, {}, {}, {}, flow, {}, 1.0, created=float(len(rows))))
    return found


@pytest.fixture
def say(store: Store, capsys: pytest.CaptureFixture[str]) -> Say:
    def said(*words: str, code: int = 0) -> str:
        assert run_command(["audit", *words, f"store={store.root}"]) == code
        found = capsys.readouterr()
        return found.err if code else found.out

    return said


def test_a_sheet_is_written_filled_in_and_read_back(say: Say, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    said = say("write", f"out={out}")
    assert "50 of the 240 samples of generate 0123abcd" in said
    assert f"dsrl audit read {out}" in said
    fill(out, lambda number: "n" if number in (3, 7) else "?" if number == 9 else "" if number == 10 else "Y")
    said = say("read", str(out))
    found = json.loads(out.with_suffix(".json").read_text())
    assert (found["judged"], found["unclear"], found["blank"], found["source"]) == (48, 1, 1, SOURCE)
    assert 0 < found["low"] < found["estimate"] < found["high"] < 0.2
    assert f"wrong labels: {found['estimate']:.1%}, 95 % interval" in said
    assert "1 unclear and 1 not judged" in said
    assert sum(row["rows"] for row in found["strata"]) == 240
    assert sum(row["wrong"] for row in found["strata"]) == 2
    assert json.loads(audit_path(store.root, "0123abcd").read_text()) == found


def test_the_report_shows_the_audit(say: Say, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    say("write", f"out={out}")
    fill(out, lambda number: "n" if number < 5 else "y")
    say("read", str(out))
    folder = tmp_path / "again"
    folder.mkdir()
    state, context = make_study(folder)
    shutil.copytree(store.root / "audits", context.store.root / "audits")
    context.metrics["keys"]["generate"] = "0123abcd"
    assert Report()(state, context).figures["labels"]["audit"]["judged"] == 50
    page = (context.run_dir / "report.html").read_text(encoding="utf-8")
    assert "Manual audit" in page
    assert "50 judged rows" in page


def test_a_run_folder_names_its_store_and_keeps_its_sheet(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "run")
    run = tmp_path / "finished"
    run.mkdir()
    (run / "config.yaml").write_text("store: store\n")
    (run / "run.json").write_text(json.dumps({"folder": str(tmp_path)}))
    (run / "metrics.json").write_text(json.dumps({"keys": {"retrieve": "ffff", "generate": "aaaa"}}))
    assert run_command(["audit", "write", f"run={run}", "rows=7"]) == 0
    assert "7 of the 100 samples of generate aaaa" in capsys.readouterr().out
    fill(run / "audit.csv", lambda number: "y")
    assert run_command(["audit", "read", str(run / "audit.csv")]) == 0
    assert "wrong labels: 0.0%" in capsys.readouterr().out
    assert (run / "audit.json").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("correct", "korrekt"), ["no column correct", "korrekt"]),
        (lambda text: re.sub("generate/0123abcd", "generate/9999", text), ["not in the store", "generate/9999"]),
        (lambda text: text.replace("generate/0123abcd", "../../x", 1), ["source", "../../x"]),
        (lambda text: re.sub(r"\n[0-9a-f']+,", "\nfeed,", text, count=1), ["1 ids are not among", "feed"]),
        (lambda text: text + text.splitlines()[-1], ["row 52", "earlier row"]),
        (lambda text: text.splitlines()[0] + "\r\n", ["no rows"]),
        (lambda text: "", ["no rows", "dsrl audit write"]),
        (lambda text: text.replace(",y,", ",perhaps,", 1), ["row 2", "perhaps", "y (the answer is right)"]),
        (lambda text: text.replace(",y,", ",,"), ["no row is judged"]),
        (lambda text: text.replace(",y,", ',"y,', 1), ["as CSV"]),
    ],
)
def test_an_unreadable_sheet_is_refused_with_its_row(
    change: Callable[[str], str], words: list[str], say: Say, tmp_path: Path
) -> None:
    out = tmp_path / "audit.csv"
    say("write", f"out={out}")
    fill(out, lambda number: "y")
    changed = change(out.read_text(encoding="utf-8-sig"))
    out.write_bytes(changed.encode())
    said = say("read", str(out), code=2)
    for word in words:
        assert word in said
    assert not out.with_suffix(".json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "dsrl audit write"),
        (("look",), "dsrl audit write"),
        (("read",), "dsrl audit read"),
        (("read", "none.csv"), "can't read none.csv"),
        (("write", "rows=0"), "rows: not a whole number"),
        (("write", "rows=many"), "rows: not a whole number"),
        (("write", "lines=5"), "lines: unknown option"),
        (("write", "run=nowhere"), "run: "),
        (("write", "out=nowhere/at/all.csv"), "can't write"),
    ],
)
def test_wrong_arguments_are_refused(words: tuple[str, ...], said: str, say: Say) -> None:
    assert said in say(*words, code=2)


def test_a_sheet_is_never_overwritten(say: Say, tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    say("write", f"out={out}")
    before = out.read_bytes()
    assert "OTHER.csv" in say("write", f"out={out}", code=2)
    assert out.read_bytes() == before


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_sheets_saved_by_spreadsheets_are_read(separator: str, encoding: str, ending: str, tmp_path: Path) -> None:
    """Other separators, encodings and line ends; moved and extra columns; TRUE for y; an empty row at the end."""
    text = io.StringIO()
    table = csv.writer(text, delimiter=separator, lineterminator=ending)
    table.writerow(["Source", "Note", "id", "extra", "Correct"])
    table.writerow([SOURCE, "h\u00fcbsch, aber \u201efalsch\u201c; ja", "aa", "1\n2", "FALSE"])
    table.writerow([SOURCE, "", "'12", "", "TRUE"])
    table.writerow([SOURCE, "", "bb", "", " ? "])
    table.writerow(["", "", "", "", ""])
    path = tmp_path / "audit.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    assert read_sheet(path) == ({"aa": "wrong", "12": "right", "bb": "unclear"}, SOURCE)


def test_a_line_that_names_the_separator_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    path.write_text(f"sep=;\nid;correct;source\naa;y;{SOURCE}\n")
    assert read_sheet(path) == ({"aa": "right"}, SOURCE)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    path.write_bytes(b"PK\x03\x04\x81\x8d\x8f\xff")
    with pytest.raises(UserError, match="UTF-8"):
        read_sheet(path)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1+2", "'+1+2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("-5", "-5"),
        ("0.25", "0.25"),
        ("1/2", "'1/2"),
        ("3-4", "'3-4"),
        ("12e5", "'12e5"),
        ("12345678901234567890", "'12345678901234567890"),
        ("x = 3", "x = 3"),
        ("", ""),
    ],
)
def test_cells_are_guarded_against_formulas_and_dates(cell: str, written: str) -> None:
    assert guard_cell(cell) == written


@given(st.text(max_size=40))
def test_no_cell_starts_like_a_formula(cell: str) -> None:
    assert not re.match(r"[=+@\t\r]|-(?!\d)", guard_cell(cell))


def test_any_text_of_a_sample_stays_in_one_row(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    hostile = 'a\r\nb,"c";\u2028d\x0be'
    odd = [sample.replace(solution=hostile) for sample in samples[:5]]
    path = tmp_path / "audit.csv"
    write_sheet(path, odd, SOURCE)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,")
    verdicts, source = read_sheet(path)
    assert (verdicts, source) == ({sample.id: None for sample in odd}, SOURCE)
    with path.open(encoding="utf-8-sig", newline="") as file:
        assert {row["solution"] for row in csv.DictReader(file)} == {hostile}


def test_very_long_cells_are_cut_when_written_and_read_when_not(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    """Spreadsheets split cells after 32,767 characters; csv refuses fields over 131,072."""
    long = samples[0].replace(messages=(Message(role="user", content="x" * 200_000),))
    path = tmp_path / "audit.csv"
    write_sheet(path, [long], SOURCE)
    with path.open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert len(row["input"]) < 32_767
    path.write_text(f"id,input,correct,source\naa,{'x' * 200_000},y,{SOURCE}\n")
    assert read_sheet(path) == ({"aa": "right"}, SOURCE)


def test_the_draw_is_seeded_and_covers_all_strata(samples: tuple[Sample, ...]) -> None:
    drawn = draw_stratified(samples, 50, 0)
    assert drawn == draw_stratified(samples, 50, 0)
    assert drawn != draw_stratified(samples, 50, 1)
    assert len({sample.id for sample in drawn}) == 50
    levels = Counter(map(stratum_of, drawn))
    assert levels == allocate_rows(stratum_sizes(samples), 50)
    assert set(levels) == set(map(stratum_of, samples))
    assert len(draw_stratified(samples, 1000, 0)) == len(samples)


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 300), min_size=1, max_size=6), st.integers(1, 80))
def test_all_requested_rows_are_allocated(strata: dict[str, int], rows: int) -> None:
    allocated = allocate_rows(strata, rows)
    assert sum(allocated.values()) == min(rows, sum(strata.values()))
    assert all(allocated[name] <= size for name, size in strata.items())


def test_a_damaged_entry_is_not_audited(store: Store) -> None:
    (entry,) = [entry for entry in labelled_entries(store) if entry.manifest.key == "aaaa"]
    (entry.folder / "samples.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        read_samples(entry)


def test_an_audit_estimates_a_known_error_rate(tmp_path: Path) -> None:
    """With all rows judged the estimate is exact; with fifty, its interval covers the truth."""
    state, _ = make_study(tmp_path, count=400)
    rng = random.Random(2)
    wrong = {
        sample.id for sample in state.samples if rng.random() < (0.02 if stratum_of(sample) == "all agree" else 0.2)
    }
    truth = len(wrong) / len(state.samples)
    everything = estimate_error(state.samples, {s.id: "wrong" if s.id in wrong else "right" for s in state.samples})
    assert (everything.low, everything.estimate, everything.high) == pytest.approx((truth, truth, truth))
    some = draw_stratified(state.samples, 50, 0)
    found = estimate_error(state.samples, {s.id: "wrong" if s.id in wrong else "right" for s in some})
    assert found.low <= truth <= found.high
