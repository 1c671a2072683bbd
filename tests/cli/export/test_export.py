"""What goes out of the store, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from dsrl.cli.export import folder as place
from dsrl.cli.export.reward import compute_score
from dsrl.cli.export.shards import write_split
from dsrl.cli.export.source import source_of_run
from dsrl.cli.export.write import write
from dsrl.core.errors import UserError
from dsrl.main import run_command
from dsrl.pipeline.store import Store
from tests.pictured import TASK, shapes, stored_run

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def said(*words: str) -> tuple[int, str]:
        code = run_command(["export", *words])
        found = capsys.readouterr()
        return code, found.out + found.err

    return said


def rows(path: Path) -> list[dict]:
    return pq.ParquetFile(path).read().to_pylist()


def test_a_run_goes_out_with_its_pictures_card_and_model(tmp_path: Path, say: Say) -> None:
    run, state = stored_run(tmp_path)
    out = tmp_path / "out"
    code, said = say(str(run), f"out={out}", "splits=train,accepted,rejected")
    assert code == 0, said
    assert "4 train, 6 accepted, 2 rejected, with 4 different images" in said
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    splits = {f"data/{name}-00000-of-00001.parquet" for name in ("train", "accepted", "rejected")}
    assert files == {*splits, "README.md", "export.json", "model/config.json"}
    train = rows(out / "data" / "train-00000-of-00001.parquet")
    assert [row["id"] for row in train] == list(state.selected)
    first = train[0]
    assert first["images"] == [{"bytes": shapes(0), "path": state.samples[4].images[0].path[3:]}]
    assert first["question"].startswith("<image>\nHow many")
    assert first["prompt"] == f"{first['question']}\n\n{TASK.output_instruction}"
    assert (first["pass_rate"], first["num_correct"], first["selected"]) == (0.5, 2, True)
    accepted = rows(out / "data" / "accepted-00000-of-00001.parquet")
    assert [len(row["images"]) for row in accepted] == [1, 1, 2, 0, 1, 2]
    turned_down = rows(out / "data" / "rejected-00000-of-00001.parquet")
    assert {(row["rejected_by"], row["reason"], row["id"]) for row in turned_down} == {("rewrite", "too hard", None)}


def test_the_files_say_what_their_columns_are(tmp_path: Path, say: Say) -> None:
    run, _ = stored_run(tmp_path)
    say(str(run), f"out={tmp_path / 'out'}")
    schema = pq.read_schema(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["images"] == {"feature": {"_type": "Image"}, "_type": "Sequence"}
    assert features["pass_rate"] == {"dtype": "float64", "_type": "Value"}


def test_the_card_says_how_it_was_made_and_what_is_not_known(tmp_path: Path, say: Say) -> None:
    run, _ = stored_run(tmp_path)
    say(str(run), f"out={tmp_path / 'out'}")
    _, front, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "cc-by-4.0"
    assert head["task_categories"] == ["visual-question-answering"]
    assert head["size_categories"] == ["n<1K"]
    assert [one["split"] for one in head["configs"][0]["data_files"]] == ["train", "accepted"]
    for words in (
        "> Count what a picture shows.",
        "| seeds | someone/shapes, split train, revision 0123, licence CC-BY-4.0 |",
        "| teacher | writer |",
        "| grader | kind: number, digest number |",
        "| rewrite | 4 | 6 | 2 too hard |",
        "| harder | 2 | 0.500 | 0 never, 0 always |",
        "1 share text with an item (1 by the rule same), 1 were taken out",
        "| trained | 9 | 75.0 % | 60.0 to 90.0 % |",
        "fell from 4.0 to 2.0 on average",
        "is not proved",
    ):
        assert words in body, words


@pytest.mark.parametrize("kept", [3, 6])
def test_text_alone_has_no_column_for_pictures(kept: int, tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path)
    made = source_of_run(run, Store(tmp_path / "store"))
    bare = tuple(sample for sample in made.samples[:kept] if not sample.images)
    text = type(made)(name="text", images=made.images, samples=bare or (made.samples[3],))
    write(text, tmp_path / "out", "hf", ("train", "accepted"), model=True)
    (path,) = (tmp_path / "out" / "data").iterdir()
    assert path.name.startswith("accepted-")
    assert "images" not in pq.read_schema(path).names
    assert rows(path)[0]["prompt"] is None, "how an entry's questions are asked isn't known"


def test_an_entry_of_the_store_goes_out_by_its_key(tmp_path: Path, say: Say) -> None:
    stored_run(tmp_path)
    (entry,) = Store(tmp_path / "store").entries("rewrite")
    words = (entry.manifest.key[:6], f"store={tmp_path / 'store'}")
    code, said = say(*words, f"out={tmp_path / 'out'}")
    assert code == 0, said
    assert "rows     6 accepted" in said
    assert "no split `train`" in said
    code, said = say(*words, f"out={tmp_path / 'verl'}", "format=verl")
    assert code == 2
    assert "a store entry doesn't know its task" in said


def test_rows_for_verl_mix_text_and_pictures(tmp_path: Path, say: Say) -> None:
    run, state = stored_run(tmp_path, count=8)
    code, said = say(str(run), f"out={tmp_path / 'out'}", "format=verl", "model=false")
    assert code == 0, said
    table = rows(tmp_path / "out" / "data" / "train.parquet")
    assert [row["prompt"][0]["content"].count("<image>") for row in table] == [len(row["images"]) for row in table]
    assert {len(row["images"]) for row in table} == {0, 1, 2}
    assert table[0]["images"] == [{"bytes": shapes(0)}]
    assert table[0]["reward_model"] == {"style": "rule", "ground_truth": "1"}
    told = table[0]["extra_info"]
    assert (told["id"], told["origin"], told["pass_rate"]) == (state.selected[0], "harder", 0.5)
    assert len({tuple(row["extra_info"]) for row in table}) == 1
    grader = str(tmp_path / "out" / "grader.json")
    right, wrong = (compute_score("dsrl", f"#### {said}", "1", told, grader=grader) for said in (1, 2))
    assert (right["score"], wrong["score"], wrong["format_ok"]) == (1.0, 0.0, 1.0)
    assert not (tmp_path / "out" / "model").exists()


def test_pictures_that_are_gone_are_said_before_anything_is_written(tmp_path: Path, say: Say) -> None:
    run, state = stored_run(tmp_path)
    lost = tmp_path / "store" / "images" / state.samples[1].images[0].path
    lost.unlink()
    code, said = say(str(run), f"out={tmp_path / 'out'}")
    assert code == 2
    assert "1 of 4 images are no longer in the store" in said
    assert str(lost) in said
    assert not (tmp_path / "out").exists()
    assert say(str(run), f"out={tmp_path / 'out'}", "splits=train")[0] == 0, "the picture isn't in this split"


def test_only_an_earlier_export_is_replaced(tmp_path: Path, say: Say) -> None:
    run, _ = stored_run(tmp_path)
    out = tmp_path / "out"
    assert say(str(run), f"out={out}", "splits=rejected")[0] == 0
    (out / "notes.txt").write_text("mine")
    code, said = say(str(run), f"out={out}")
    assert code == 2
    assert "replace=true" in said
    assert say(str(run), f"out={out}", "replace=true", "model=false")[0] == 0
    assert {path.name for path in out.iterdir()} == {"README.md", "data", "export.json", "notes.txt"}
    assert {path.name[:8] for path in (out / "data").iterdir()} == {"train-00", "accepted"}
    with pytest.raises(UserError, match=r"(?s)is not empty.*earlier export"):
        place.check_free(run, replace=True)


def test_a_training_without_samples_leaves_its_model(tmp_path: Path, say: Say) -> None:
    run, _ = stored_run(tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["keys"] = {"train": metrics["keys"]["train"]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    code, said = say(str(run), f"out={tmp_path / 'out'}")
    assert code == 0, said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "export.json", "model"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "dsrl export RUN"),
        (("RUN",), "give out=FOLDER"),
        (("RUN", "out=OUT", "format=csv"), "hf, verl"),
        (("RUN", "out=OUT", "splits=test"), "train, accepted, rejected"),
        (("RUN", "out=OUT", "splits="), "no such split"),
        (("RUN", "out=OUT", "format=verl", "splits=train"), "splits belongs to format=hf"),
        (("RUN", "out=OUT", "model=maybe"), "true, false"),
        (("RUN", "out=OUT", "outt=x"), "unknown option of export"),
        (("RUN", "out=RUN"), "is not empty"),
        (("RUN/metrics.json", "out=OUT", "store=STORE"), "no such run or entry"),
        (("STORE", "out=OUT"), "no metrics.json in it"),
        (("ffff", "out=OUT", "store=STORE"), "no such run or entry"),
        (("RUN", "out=OUT", "store=OUT"), "no store at"),
        (("RUN", "out=OUT", "push=shapes"), "owner/name"),
        (("RUN", "out=OUT", "push=me/shapes"), "HF_HUB_OFFLINE forbids the network"),
    ],
)
def test_a_mistake_is_named_before_anything_is_written(
    words: tuple[str, ...], said: str, tmp_path: Path, say: Say
) -> None:
    run, _ = stored_run(tmp_path)
    places = {"RUN": run, "OUT": tmp_path / "out", "STORE": tmp_path / "store"}
    for name, path in places.items():
        words = tuple(word.replace(name, str(path)) for word in words)
    code, told = say(*words)
    assert code == 2
    assert said in told
    assert not (tmp_path / "out").exists()


def test_a_run_that_wrote_nothing_says_which_stages_it_had(tmp_path: Path, say: Say) -> None:
    run, _ = stored_run(tmp_path)
    (run / "metrics.json").write_text(json.dumps({"name": "idle", "keys": {"generate": "0" * 20}}))
    code, said = say(str(run), f"out={tmp_path / 'out'}")
    assert code == 2
    assert "there are no samples to export" in said
    assert "no longer in" in said
    assert "generate" in said


def test_long_sets_are_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setattr("dsrl.cli.export.shards.MAX_BYTES", 1)
    count = write_split(tmp_path, "train", ({"n": n} for n in range(250)), pa.schema({"n": pa.int64()}))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert count == 250
    assert names == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert [row["n"] for name in names for row in rows(tmp_path / name)] == list(range(250))
