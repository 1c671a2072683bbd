"""Who may import whom, and what may not be imported before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsrl.core.parquet import write_table
from dsrl.data.sample import Passage
from tests.command import CHECKOUT, ENVIRONMENT

PACKAGE = CHECKOUT / "dsrl"
ROOMS = (
    "seeds",
    "difficulty",
    "retrieve",
    "generate",
    "score",
    "clean",
    "select",
    "train",
    "evaluate",
    "report",
    "cluster",
    "tracking",
)
SHARED = ("llm", "grade", "match", "prompts", "images")
ABOVE = ("main", "cli", "run", "config", "record", "verbs", "export", "plan", "doctor", "tasks", "jobs", "checkpoints")
"""What runs the rooms; no room may know of it."""
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "openai",
    "mlflow",
    "datasets",
    "pyarrow",
    "tantivy",
    "elasticsearch",
    "elastic_transport",
    "aiohttp",
    "jinja2",
    "rich",
    "pandas",
    "math_verify",
    "sympy",
    "submitit",
    "ray",
    "wandb",
    "regex",
    "rensa",
)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules of dsrl that a file imports, anywhere in it, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "dsrl")


def at_module_level(path: Path) -> Iterator[str]:
    """What is imported as soon as the file is; not what only a type checker sees."""
    waiting = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            waiting += node.body + node.orelse
        elif isinstance(node, (ast.Try, ast.With, ast.ClassDef)):
            waiting += node.body


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_another_room_or_what_runs_it(room: str) -> None:
    forbidden = {*ROOMS, *ABOVE, "quickstart"} - {room}
    faults = [
        f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
        for path in files(PACKAGE / room)
        for name, line in imports(path)
        if "." in name and name.split(".")[1] in forbidden
    ]
    assert faults == []


@pytest.mark.parametrize("shared", SHARED)
def test_what_all_rooms_share_knows_none_of_them(shared: str) -> None:
    forbidden = {*ROOMS, *ABOVE, "quickstart"}
    faults = [
        f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
        for path in files(PACKAGE / shared)
        for name, line in imports(path)
        if "." in name and name.split(".")[1] in forbidden
    ]
    assert faults == []


def test_no_module_but_the_loop_and_the_command_line_knows_a_room() -> None:
    """Stages come in by config; only types may be named."""
    faults = [
        f"{path.name} imports {name}"
        for path in sorted(PACKAGE.glob("*.py"))
        for name in at_module_level(path)
        if name.startswith("dsrl.") and name.split(".")[1] in ROOMS
    ]
    assert faults == []


def test_every_room_is_known_to_this_test() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= {
        *ROOMS,
        *SHARED,
        "quickstart",
        "faultserver",
        "export",
        "plan",
        "doctor",
        "tasks",
        "jobs",
        "checkpoints",
    }


def test_relative_imports_are_not_used() -> None:
    relative = [
        path
        for path in files(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def loaded(code: str) -> set[str]:
    """Top-level modules in memory after some code."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


STAGES = """
from dsrl.stages.difficulty import Difficulty
from dsrl.stages.seeds import Seeds
from dsrl.stages.generate import Generate, HarderVariants, MajorityVote, Rewrite
from dsrl.stages.retrieve import Elasticsearch, Embedded, NoRetriever, Retrieve
from dsrl.stages.score import PassCount, Probe, Score, ServerRollout, TransformersRollout
from dsrl.stages.decontaminate import Decontaminate, Diversity
from dsrl.stages.select import All, Easiest, Hardest, Learnable, PaperRanking, RandomChoice
from dsrl.stages.train import DrGrpo, Grpo, NoTraining, Sft, Trl
from dsrl.stages.evaluate import Compare, Evaluate
from dsrl.stages.report import Report
from dsrl.infra.tracking import Tracking
from dsrl.infra.ray import LocalRay, RayAddress, Request, SlurmRay
from dsrl.quickstart import OfflineTeacher
"""


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """Config, stages and the whole command line: a mistake is told, and help given, without waiting for torch."""
    found = loaded(
        f"import dsrl.main, dsrl.cli.app, dsrl.cli.store_commands, dsrl.pipeline.config"
        f"\nimport dsrl.pipeline.runner, dsrl.pipeline.run_folder{STAGES}"
    )
    assert found & set(HEAVY) == set()
    assert "dsrl" in found


def test_help_needs_not_even_hydra() -> None:
    found = loaded("from dsrl.cli.app import dispatch; import os; dispatch(['--help'])")
    assert found & {*HEAVY, "hydra", "omegaconf", "pydantic"} == set()


def test_a_stored_result_is_read_without_pandas(tmp_path: Path) -> None:
    """It would cost a second in every run that only reuses what is there."""
    path = tmp_path / "passages.parquet"
    write_table(path, [], Passage)
    code = f"""
from pathlib import Path
from dsrl.core.parquet import read_table
from dsrl.data.sample import Passage
read_table(Path({str(path)!r}), Passage)
"""
    assert loaded(code) & {"pandas", "datasets"} == set()
