"""A real Slurm of two nodes, once for all tests of this folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.slurm.engine import Slurm

SCRIPT = Path(__file__).with_name("cluster.sh")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Needs root and Debian's packages; see docs/slurm.md."""
    if os.getuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmdbd", "mariadbd", "munged", "nsenter"))):
        pytest.skip("needs root and the packages named in docs/slurm.md")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: sockets' paths have 107 bytes
    try:
        started = subprocess.run(["bash", SCRIPT, "start", folder], capture_output=True, text=True, check=False)
        assert started.returncode == 0, started.stdout + started.stderr
        yield Slurm(folder / "etc" / "slurm.conf")
    finally:
        subprocess.run(["bash", SCRIPT, "stop", folder], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
