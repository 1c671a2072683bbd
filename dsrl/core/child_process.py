"""Child processes for everything that holds a model: its memory, threads and GPU end with them, and they with us."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import IO, TextIO

from dsrl.core.errors import UserError

TAIL_LINES = 12
STOP_SECONDS = 10.0


def start(
    module: str,
    arguments: Sequence[str],
    log: Path,
    threads: int | None,
    answers: int | None,
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> "Child":
    """Run `python -m module arguments` with its errors in `log`, which is added to.

    `answers` is what becomes of its standard output: `subprocess.PIPE`, or None for the log. `python` is the
    interpreter of another environment, which then imports its own packages; None: this one. `variables` go before the
    environment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    program = command(module, arguments, python, threads)
    with log.open("ab") as errors:
        return subprocess.Popen(
            program.arguments,
            stdin=subprocess.PIPE,
            stdout=errors if answers is None else answers,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**program.environment, **(variables or {})},
            start_new_session=True,  # Ctrl-C goes to the parent, which ends it
        )


Child = subprocess.Popen[str]


@dataclass(frozen=True)
class Program:
    """How a child is called."""

    arguments: list[str]
    environment: dict[str, str]


def command(module: str, arguments: Sequence[str], python: str | None = None, threads: int | None = None) -> Program:
    """`python -m module arguments`, by this interpreter or that of another environment."""
    return Program([python or sys.executable, "-P", "-m", module, *arguments], _environment(threads, python))


def _environment(threads: int | None, python: str | None) -> dict[str, str]:
    """Ours, with what a child needs to import all that we can, and the first of the GPUs we see."""
    wanted = {
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path if python is None or _ours(entry)),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Idle threads sleep instead of spinning: on a busy machine spinning makes small models twenty times slower.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    return {**os.environ, **wanted, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def _ours(entry: str) -> bool:
    """Whether it holds modules of the user or this checkout, and not the packages of this very interpreter."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    parts = Path(entry).parts
    return (
        not entry.endswith(".zip")
        and not {"site-packages", "dist-packages"} & {*parts}
        and not any(Path(entry).is_relative_to(place) for place in places)
    )


def require(*packages: str) -> None:
    """Raises `UserError` where a package that the child will import isn't installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} must be installed to run models on this machine",
            next_step="pip install 'dsrl[local]', or use models that somebody serves",
        )


def stop(child: Child) -> None:
    """End it kindly by closing its input, after `STOP_SECONDS` by force."""
    for pipe in (child.stdin, child.stdout):
        _close(pipe)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:  # a question was still on its way to a child that is gone
        return


def tail(log: Path) -> str:
    """The last lines of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(line[:300] for line in lines[-TAIL_LINES:])


def end_in_words(code: int) -> str:
    """What an exit status says."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")


def end_with_parent(stream: TextIO, take: Callable[[str], object] = len) -> None:
    """In the child: hand on each line of standard input, and end the process with the stream, whatever it is doing."""

    def read() -> None:
        for line in stream:
            take(line)
        os._exit(0)

    Thread(target=read, daemon=True).start()
