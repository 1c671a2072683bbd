"""What the environment of train=verl has, which may be another than dsrl's own: `train.python`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from dsrl.cli.doctor.finding import Finding, Mark

ANSWER_SECONDS = 20.0
PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
def known(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], **{name: known(name) for name in sys.argv[1:]}}))
"""
"""Imports nothing but Python's own: veRL and torch would take many seconds."""
CURE = "make verl and train.python=.venv-verl/bin/python, or on GPUs: pip install 'dsrl[gpu]' (docs/training_verl.md)"


def trainer(node: dict[str, Any], *, wanted: bool) -> Iterator[Finding]:
    """One line for each package. `node` is the config of the training; `wanted`: it was asked for."""
    from dsrl.stages.train.verl.config_schema import VERSION
    from dsrl.stages.train.verl.preflight import NEEDED

    lacking: Mark = "!!" if wanted else "-"
    given = node.get("python") or os.environ.get("DSRL_VERL_PYTHON") or sys.executable
    path = shutil.which(os.path.expanduser(given))
    if path is None:
        yield Finding(lacking, "interpreter", f"{given}: no such program; {CURE}")
        return
    found, problem = _asked(path, (*NEEDED, "dsrl"))
    if problem:
        yield Finding(lacking, "interpreter", f"{given}: {problem}")
        return
    yield Finding("ok", "interpreter", f"{given}, Python {found['python']}")
    for name in (*NEEDED, "dsrl"):
        text = found[name] or "not installed"
        if name == "verl" and found[name] not in (None, VERSION):
            yield Finding(lacking, name, f"{text}, where dsrl speaks to {VERSION}: pip install verl=={VERSION}")
        else:
            yield Finding("ok" if found[name] else lacking, name, text)
    if not all(found[name] for name in NEEDED):
        yield Finding(lacking, "next", CURE)


def _asked(python: str, names: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Versions, or why there are none."""
    command = [os.path.abspath(python), "-P", "-c", PROBE, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {ANSWER_SECONDS:g} s"
    except OSError as error:
        return {}, error.strerror or str(error)
    if done.returncode != 0:
        return {}, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    versions: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return versions, ""
