"""Commands in README, docs and experiment heads can be run as written, and links point to existing files."""

import base64
import json
import re
import shlex
from pathlib import Path

import pytest

from dsrl.cli.app import PIPELINE_VERBS, find_verb, split_verb
from dsrl.cli.compose import refuse_secrets
from tests.command import CHECKOUT
from tests.composed import built
from tests.pipeline.test_config import local

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "tasks/**/*.md", "multirun/*.md", "slurm/**/*.md", "benchmarks/**/*.md")
    for path in CHECKOUT.glob(pattern)
)
EXPERIMENTS = sorted((CHECKOUT / "conf" / "experiment").rglob("*.yaml"))
IMAGE = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
"""A PNG of one grey pixel."""
COMMAND = re.compile(r"^(?:[#$>] ?|    )?\s*(?:[A-Z_]+=\S+ )*(?:python -m )?dsrl (\S.*)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def commands() -> list[tuple[str, str]]:
    """(document, arguments) of every command line. Lines with a bare `...` are skipped."""
    found = []
    for path in (*DOCUMENTS, *EXPERIMENTS):
        for line in path.read_text(encoding="utf-8").splitlines():
            match = COMMAND.match(line.split("   #")[0].rstrip())
            indented = line.startswith(("    ", "# dsrl", "$ ", "dsrl ", "python -m dsrl"))
            if match and indented and "..." not in match[1].split() and ("=" in match[1] or len(match[1].split()) <= 3):
                found.append((str(path.relative_to(CHECKOUT)), match[1]))
    return found


def test_there_are_commands_to_check() -> None:
    assert len([name for name, _ in commands() if name == "README.md"]) >= 10


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like that of a reader of the README: an API key, the task file shown there, and test sets."""
    monkeypatch.setenv("OPENAI_API_KEY", "not a key")
    monkeypatch.chdir(tmp_path)
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^(    name: mytask\n(?:    .*\n)*)", text, re.MULTILINE)
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mytask.yaml").write_text(re.sub(r"^    ", "", shown, flags=re.MULTILINE))
    rows = ({"input": f"{number} + 1?", "output": f"#### {number + 1}"} for number in range(100))
    (tmp_path / "demos.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "RATINGS.parquet").touch()
    for name in ("my_test", "my_train", "gsm8k_test"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    write_image_task(tmp_path)
    return tmp_path


def write_image_task(folder: Path) -> None:
    """Write the image task that docs/images.md shows, and its images."""
    text = (CHECKOUT / "docs" / "images.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^(    name: shapes\n(?:    .*\n)*)", text, re.MULTILINE)
    (folder / "my_conf" / "task" / "shapes.yaml").write_text(re.sub(r"^    ", "", shown, flags=re.MULTILINE))
    for name in ("shapes", "photos"):
        (folder / name).mkdir()
        (folder / name / "1.png").write_bytes(IMAGE)
    row = {"question": "How many?", "answer": "2", "image": "1.png", "left": "1.png", "right": "1.png"}
    for name in ("train", "test"):
        (folder / "shapes" / f"{name}.jsonl").write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize(("document", "line"), commands(), ids=lambda value: value)
def test_every_command_line_runs_up_to_building_the_pipeline(document: str, line: str, reader: Path) -> None:
    words = shlex.split(line)
    verb, words = split_verb(words)
    if verb not in PIPELINE_VERBS:
        assert callable(find_verb(verb))
        return
    config_dir = None
    if "--config-dir" in words:
        at = words.index("--config-dir")
        config_dir = reader / words[at + 1]
        del words[at : at + 2]
    sweep = "-m" in words
    overrides = [word.partition(",")[0] if sweep else word for word in words if not word.startswith("-")]
    refuse_secrets(overrides)
    if not any(word.startswith("task.test.path") for word in overrides):
        named = [word.partition("=")[2] for word in overrides if word.startswith("task=")]
        shipped = [name for name in named if (CHECKOUT / "conf" / "task" / f"{name}.yaml").is_file()]
        overrides += [override for name in shipped for override in local(name)]  # the hub is out of reach
    pipeline, _ = built(*PIPELINE_VERBS[verb], *overrides, config_dir=config_dir)
    assert pipeline


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_point_to_existing_files(path: Path) -> None:
    links = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_make_targets_in_documents_exist(path: Path) -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9]+):", makefile, re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    asked = set(re.findall(r"(?:^    |`)make ([a-z0-9]+)", text, re.MULTILINE))
    assert asked <= targets


def test_every_make_target_is_phony() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z0-9]+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_placeholders_are_left(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\bTODO\b|\bFIXME\b|\bXXX\b|\b[A-Z]+_LINE\b", text)
