"""Child processes for everything that loads a model: memory, threads and GPU are freed when they end. They end with
their parent, and inherit only the part of its environment that is theirs."""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import IO, TextIO

from dsrl.core.errors import UserError

TAIL_LINES = 12
MAX_LINE = 300
MAX_CAUSES = 3
STOP_SECONDS = 10.0
START_LINE = "--- start of"
"""Begins each child's part of a log that several attempts share."""
EXCEPTION = re.compile(
    r"^(?:\([^)]*\)\s*)?(?:ERROR \S+ \S+ \[[^\]]*\]\s*)?(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*",
    re.MULTILINE,
)
"""The last line of a traceback, after the prefixes of Ray and vLLM."""

FOREIGN_VARIABLES = (
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_*"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_*", "TORCH_NCCL_*", "ACCELERATE_*", "FSDP_*", "OMPI_*", "PMI_*"),
    *("PMI2_*", "PMIX_*", "MV2_*", "MPI_*", "SLURM_*"),
)
"""Variables of a distributed job that surrounds dsrl. A trainer would wait for the job's other processes."""
SECRET = re.compile(r"(^|_)(API_?KEYS?|ACCESS_KEY|SECRET|SECRETS|TOKEN|TOKENS|PASSWORD|PASSWD|CREDENTIALS?)(_|$)")
"""Names of variables that hold a secret."""
HUB_SECRETS = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
"""Secrets of children that load models, for gated repositories."""
NO_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # TRL's too
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
MAX_TMPDIR = 60
"""Longest path of a temporary folder in which Unix sockets (up to 107 bytes) still find room."""


def start(
    module: str,
    arguments: Sequence[str],
    log: Path,
    threads: int | None,
    answers: int | None,
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> "Child":
    """Run `python -m module arguments`; its standard error is appended to `log`.

    `answers` is where standard output goes: `subprocess.PIPE`, or None for the log. `python` is the interpreter of
    another environment, which imports its own packages; None: this one. `variables` override the environment;
    `secrets` are the names (patterns) of secrets that the child may inherit.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    program = command(module, arguments, python, threads, secrets)
    with log.open("ab") as errors:
        errors.write(f"{START_LINE} {module}\n".encode())
        errors.flush()
        return subprocess.Popen(
            program.arguments,
            stdin=subprocess.PIPE,
            stdout=errors if answers is None else answers,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**program.environment, **(variables or {})},
            start_new_session=True,  # Ctrl-C goes to the parent only, which stops the child
        )


Child = subprocess.Popen[str]


@dataclass(frozen=True)
class Program:
    """Command and environment of a child."""

    arguments: list[str]
    environment: dict[str, str]


def command(
    module: str,
    arguments: Sequence[str],
    python: str | None = None,
    threads: int | None = None,
    secrets: Sequence[str] = (),
) -> Program:
    """`python -m module arguments`, by this interpreter or that of another environment."""
    entries = [entry or os.getcwd() for entry in sys.path if python is None or _is_ours(entry)]
    environment = inherited_environment(os.environ, secrets)
    environment |= {
        "PYTHONPATH": os.pathsep.join(entries),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Idle threads sleep instead of spinning: on a busy machine spinning makes small models twenty times slower.
        "OMP_WAIT_POLICY": environment.get("OMP_WAIT_POLICY", "PASSIVE"),
        "CUDA_VISIBLE_DEVICES": environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return Program([python or sys.executable, "-P", "-m", module, *arguments], environment)


def inherited_environment(environment: Mapping[str, str], secrets: Sequence[str] = ()) -> dict[str, str]:
    """The part of an environment that a child inherits: no variables of a surrounding distributed job, no secrets other
    than `secrets` (patterns), no telemetry, GPUs in the order of `nvidia-smi`, a short folder for sockets."""
    inherited = {
        name: value
        for name, value in environment.items()
        if not any(fnmatch(name, pattern) for pattern in FOREIGN_VARIABLES)
        and (not SECRET.search(name) or any(fnmatch(name, pattern) for pattern in secrets))
    }
    inherited.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if len(inherited.get("TMPDIR", "")) > MAX_TMPDIR:
        inherited["TMPDIR"] = "/tmp"  # noqa: S108 - the only folder that is short everywhere
    return inherited | NO_TELEMETRY


def _is_ours(entry: str) -> bool:
    """Whether a path entry holds modules of the user or of this checkout, rather than this interpreter's packages."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    parts = Path(entry).parts
    return (
        not entry.endswith(".zip")
        and not {"site-packages", "dist-packages"} & {*parts}
        and not any(Path(entry).is_relative_to(place) for place in places)
    )


def require(*packages: str) -> None:
    """Raise `UserError` if a package that the child will import isn't installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} must be installed to run models on this machine",
            next_step="pip install 'dsrl[local]', or use models on a server",
        )


def stop(child: Child) -> None:
    """Close its standard input, at which it exits; kill it after `STOP_SECONDS`."""
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
    except BrokenPipeError:  # the child exited before it read everything
        return


def tail(log: Path) -> str:
    """The last lines of a log's last attempt, after the exceptions further up: the first one is often the cause."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    _, _, attempt = text.rpartition(START_LINE)
    lines = attempt.partition("\n")[2].splitlines() if START_LINE in text else text.splitlines()
    last = [line[:MAX_LINE] for line in lines[-TAIL_LINES:]]
    causes = dict.fromkeys(match.group()[:MAX_LINE] for match in EXCEPTION.finditer("\n".join(lines[:-TAIL_LINES])))
    new = [cause for cause in causes if cause not in last]
    return "\n".join([*new[:MAX_CAUSES], *(["..."] if new else []), *last])


def end_in_words(code: int) -> str:
    """Describe an exit status: `exit code 1`, `killed by signal 9 (out of memory?)`."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")


def end_with_parent(stream: TextIO, take: Callable[[str], object] = len) -> None:
    """In the child: pass each line of standard input to `take`, and exit at its end, whatever the process is doing."""

    def read() -> None:
        for line in stream:
            take(line)
        os._exit(0)

    Thread(target=read, daemon=True).start()
