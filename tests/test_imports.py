"""Package order, import cycles, and heavy imports that must be delayed."""

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
ORDER = (
    *("main", "cli", "quickstart", "stages", "models", "forecast", "pipeline"),
    *("infra", "llm", "data", "graders", "prompts", "core"),
)
"""From top to bottom: each package imports only from itself and from those after it."""
STAGES = (
    *("retrieve", "seeds", "generate", "rewrite", "score", "decontaminate", "select", "train", "evaluate"),
    *("difficulty", "report"),
)
SHARED_BY_STAGES = {("rewrite", "generate"), ("difficulty", "generate")}
"""Allowed imports (stage, other stage): rewriting reuses the writing and labelling of `generate`."""
HEAVY = (
    *("torch", "transformers", "trl", "openai", "mlflow", "datasets", "pyarrow", "tantivy"),
    *("aiohttp", "jinja2", "rich", "pandas", "math_verify", "sympy", "submitit", "ray", "wandb"),
    *("regex", "rensa", "scipy"),
)

Imports = dict[str, set[tuple[str, int]]]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> Imports:
    """Module -> dsrl modules it imports anywhere, including type-only imports, with line numbers."""
    files = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    found: Imports = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}:{node.lineno}: relative import"
                targets = [
                    whole if (whole := f"{node.module}.{alias.name}") in files else str(node.module)
                    for alias in node.names
                ]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            found[name] |= {(target, node.lineno) for target in targets if target in files and target != name}
    return found


@pytest.fixture(scope="module")
def graph() -> Imports:
    return imports()


def package(module: str) -> str:
    return [*module.split("."), "main"][1]


def test_packages_import_only_from_packages_below(graph: Imports) -> None:
    rank = {name: number for number, name in enumerate(ORDER)}
    outside = {"dsrl", "dsrl.__main__"}
    faults = [
        f"{module}:{line} imports {target}"
        for module, targets in graph.items()
        for target, line in sorted(targets)
        if module not in outside and target not in outside and rank[package(target)] < rank[package(module)]
    ]
    assert faults == []


def test_every_package_is_in_the_order() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__", "__main__"} == set(ORDER)


def test_no_stage_imports_another(graph: Imports) -> None:
    faults = [
        f"{module}:{line} imports {target}"
        for module, targets in graph.items()
        for target, line in sorted(targets)
        if module.startswith("dsrl.stages.") and target.startswith("dsrl.stages.")
        if (pair := (module.split(".")[2], target.split(".")[2])) and pair[0] != pair[1]
        if pair not in SHARED_BY_STAGES
    ]
    assert faults == []


def test_there_are_no_import_cycles(graph: Imports) -> None:
    assert list(cycles({module: {target for target, _ in targets} for module, targets in graph.items()})) == []


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Groups of modules that import each other (strongly connected components, by Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                yield from visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                yield group

    for node in sorted(graph):
        if node not in index:
            yield from visit(node)


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


COMPONENTS = """
import dsrl.main, dsrl.cli.app, dsrl.cli.store_commands, dsrl.pipeline.config, dsrl.pipeline.runner
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.slurm import JobRequest
from dsrl.infra.tracking import Tracking
from dsrl.models.rollout import ServerRollout, TransformersRollout, VllmRollout
from dsrl.quickstart import OfflineTeacher
from dsrl.stages.decontaminate import Decontaminate, Diversity
from dsrl.stages.difficulty import Difficulty
from dsrl.stages.evaluate import Compare, Evaluate
from dsrl.stages.generate import Generate, MajorityVote
from dsrl.stages.report import Report
from dsrl.stages.retrieve import Embedded, NoRetriever, Retrieve, SearchServer
from dsrl.stages.rewrite import HarderVariants, Rewrite
from dsrl.stages.score import PassCount, Probe, Score
from dsrl.stages.seeds import Seeds
from dsrl.stages.select import AllScored, PaperRanking, RandomChoice
from dsrl.stages.train import DrGrpo, Grpo, NoTraining, Sft, Trl, Verl
"""


def test_components_import_without_heavy_libraries() -> None:
    """Config errors and help appear without waiting for torch."""
    found = loaded(COMPONENTS)
    assert found & set(HEAVY) == set()
    assert "dsrl" in found


def test_help_does_not_import_hydra() -> None:
    found = loaded("from dsrl.main import run_command; run_command(['--help'])")
    assert found & {*HEAVY, "hydra", "omegaconf", "pydantic"} == set()


def test_a_stored_result_is_read_without_pandas(tmp_path: Path) -> None:
    """Importing pandas would cost a second in every run that only reuses results."""
    path = tmp_path / "passages.parquet"
    write_table(path, [], Passage)
    code = f"""
from pathlib import Path
from dsrl.core.parquet import read_table
from dsrl.data.sample import Passage
read_table(Path({str(path)!r}), Passage)
"""
    assert loaded(code) & {"pandas", "datasets"} == set()
