"""The built wheel, installed in another environment and used in an empty folder."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import CHECKOUT, ENVIRONMENT
from tests.e2e.runs import SMALL, metrics

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of an environment with the wheel; its dependencies come from the tests' environment."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("no uv to build the wheel with")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", CHECKOUT], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def in_folder(python: Path, folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python.parent / "dsrl", *arguments],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_conf_tasks_corpora_and_job_scripts_are_in_the_wheel(python: Path, tmp_path: Path) -> None:
    script = "import dsrl, dsrl.core.resources; print(dsrl.__file__); print(dsrl.core.resources.home())"
    kept = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", script], cwd=tmp_path, env=kept, capture_output=True, text=True, check=True)
    package, home = map(Path, done.stdout.split())
    assert package.is_relative_to(python.parent.parent)
    for name in ("conf", "tasks", "corpora", "slurm"):
        shipped = {path.relative_to(CHECKOUT / name) for path in (CHECKOUT / name).rglob("*") if path.is_file()}
        assert {path.relative_to(home / name) for path in (home / name).rglob("*") if path.is_file()} == shipped
    code = {path.relative_to(CHECKOUT / "dsrl") for path in (CHECKOUT / "dsrl").rglob("*") if path.is_file()}
    expected = {path for path in code if "__pycache__" not in path.parts}
    assert expected <= {path.relative_to(package.parent) for path in package.parent.rglob("*")}


def test_the_tasks_are_listed_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    done = in_folder(python, tmp_path, "task", "ls")
    assert done.returncode == 0, done.stderr
    assert "gsm8k" in done.stdout
    assert "quickstart" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_quickstart_runs_in_an_empty_folder(python: Path, cache: Path, tmp_path: Path) -> None:
    small = (*SMALL, "n=16", "hydra.run.dir=run")
    done = in_folder(python, tmp_path, *small, DSRL_CACHE=str(cache), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run")["status"] == "finished"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "store"}
