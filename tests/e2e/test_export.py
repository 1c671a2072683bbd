"""Exports loaded by `datasets` and by veRL's data set class, and pushed to the Hugging Face hub."""

import json
import os
import subprocess
from pathlib import Path

import datasets
import pytest

from tests.command import CHECKOUT, ENVIRONMENT, dsrl
from tests.e2e.hub import serve
from tests.e2e.runs import Place
from tests.e2e.test_verl import INTERPRETER
from tests.pictured import stored_run

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def exported(run: Path, out: Path, *words: str, cwd: Path) -> str:
    outcome = dsrl("export", str(run), f"out={out}", *words, cwd=cwd)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_a_data_set_with_images_loads_with_datasets(tmp_path: Path) -> None:
    run, state = stored_run(tmp_path)
    exported(run, tmp_path / "out", "splits=train,accepted,rejected", cwd=tmp_path)
    data = datasets.load_dataset(str(tmp_path / "out"))
    assert {name: len(rows) for name, rows in data.items()} == {"train": 4, "accepted": 6, "rejected": 2}
    assert data["train"].features["images"].feature == datasets.Image()
    first = data["train"][0]
    assert [image.size for image in first["images"]] == [(96, 64)]
    assert first["id"] == state.selected[0]
    assert [len(row["images"]) for row in data["accepted"]] == [len(sample.images) for sample in state.samples]
    assert set(data["rejected"]["reason"]) == {"too hard"}
    (loaded,) = datasets.load_dataset("parquet", data_files=str(tmp_path / "out/data/train-*")).values()
    assert loaded.features == data["train"].features, "the files contain their column types"


def test_the_quickstart_run_has_no_image_column(finished: Place, tmp_path: Path) -> None:
    found = json.loads((finished.folder / "first" / "metrics.json").read_text())
    said = exported(finished.folder / "first", tmp_path / "out", cwd=finished.folder)
    data = datasets.load_dataset(str(tmp_path / "out"))
    assert len(data["train"]) == found["select"]["selected"]
    assert f"{len(data['train'])} train" in said
    assert "images" not in data["train"].features
    assert all(row["prompt"].startswith(row["question"]) for row in data["train"])
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    card = (tmp_path / "out" / "README.md").read_text()
    for stage in ("generate", "rewrite", "decontaminate", "select"):
        assert f"| {stage} | {found['rows'][stage]['in']} | {found['rows'][stage]['out']} |" in card
    assert "{{" not in card


@pytest.mark.skipif(not INTERPRETER.is_file(), reason="needs veRL's environment: make verl")
def test_text_and_image_rows_load_with_verls_data_set_class(tmp_path: Path) -> None:
    run, state = stored_run(tmp_path, count=6)
    exported(run, tmp_path / "out", "format=verl", cwd=tmp_path)
    script = CHECKOUT / "tests" / "e2e" / "verl_rows.py"
    words = (tmp_path / "out" / "data" / "train.parquet", tmp_path / "out" / "grader.json", tmp_path / "verl_cache")
    environment = {
        **ENVIRONMENT,
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "dsrl.stages.train.verl.cpu",
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [str(INTERPRETER), "-P", str(script), *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    chosen = state.chosen(state.selected)
    assert [row["id"] for row in rows] == [sample.id for sample in chosen]
    assert [len(row["sizes"]) for row in rows] == [len(sample.images) for sample in chosen]
    assert {len(row["sizes"]) for row in rows} == {0, 1, 2}
    for row in rows:
        assert row["picture_tokens"] == 36 * len(row["sizes"])
        assert row["text"].count("<image>") == len(row["sizes"])
        assert set(map(tuple, row["sizes"])) <= {(96, 64)}
        assert row["scores"] == [1.0, 0.0]


def pushed(run: Path, folder: Path, **env: str):
    offline = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "secret", "HF_HOME": str(folder / "hf"), **env}
    words = ("export", str(run), f"out={folder / 'out'}", "push=me/shapes", "replace=true")
    return dsrl(*words, cwd=folder, env=offline)


def test_data_set_and_model_are_pushed_to_the_hub(tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path)
    with serve() as hub:
        outcome = pushed(run, tmp_path, HF_ENDPOINT=hub.url)
    assert outcome.code == 0, outcome.err
    assert f"{hub.url}/datasets/me/shapes" in outcome.out
    assert hub.tokens == {"Bearer secret"}
    assert [(one.get("type"), one["visibility"]) for one in hub.made] == [("dataset", "private"), ("model", "private")]
    parts = {f"data/{name}-00000-of-00001.parquet" for name in ("train", "accepted")}
    assert set(hub.files["datasets"]) == {"README.md", *parts}
    assert set(hub.files["models"]) == {"config.json"}
    assert hub.files["datasets"]["README.md"] == (tmp_path / "out" / "README.md").read_bytes()
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.*"))


def test_a_failed_push_is_reported_and_the_export_kept(tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path)
    with serve(refuses=403) as hub:
        refused = pushed(run, tmp_path, HF_ENDPOINT=hub.url)
    unreachable = pushed(run, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    no_token = pushed(run, tmp_path, HF_TOKEN="")
    assert [one.code for one in (refused, unreachable, no_token)] == [2, 2, 2]
    assert "me/shapes" in refused.err
    assert "403" in refused.err
    assert "hub" in unreachable.err
    assert "HF_TOKEN" in no_token.err
    assert not any("Traceback" in one.err for one in (refused, unreachable, no_token))
    assert (tmp_path / "out" / "README.md").is_file()
    assert os.environ.get("HF_TOKEN") is None
