"""`vllm serve` as a server of our own: started when it is first needed, stopped at the end of the run."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import Component, component
from dsrl.core.errors import StageFailed, UserError

HOST = "127.0.0.1"
PAUSE = 0.5
KEEPER = Path(__file__).with_name("vllm_server_child.py")
"""Started as a file, so that the path by which dsrl is imported is not vLLM's too."""
Flag = str | int | float | bool
CPU_FLAGS: dict[str, Flag] = {"no-enable-chunked-prefill": True}
"""Without a GPU: vLLM 0.27.1 dies over a request with a seed whose prompt it reads in parts."""


@component("llm.vllm_server")
class VllmServer(Component):
    """A model on this machine. It must be installed beside dsrl or be on the path: `pip install vllm`."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"speed_args", "command", "port", "log", "ready"})

    model: str
    """Folder or hub id; it is offered under this very name."""
    revision: str | None = None
    args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags of `vllm serve` that may change its replies, without the dashes: `max-model-len: 8192`,
    `enable-prefix-caching: true`. They are part of what the replies are known by."""
    speed_args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags that only change how fast they come: `tensor-parallel-size: 2`."""
    command: str = "vllm"
    port: int | None = Field(default=None, gt=0, lt=65536)
    """None: a free one."""
    log: str = "vllm.log"
    """File that its output is added to."""
    ready: float = Field(default=1800.0, gt=0)
    """Seconds it may take to load the model."""

    def start(self) -> "RunningVllm":
        """Returns once it takes requests. Raises `UserError` if there is no vLLM, `StageFailed` if it doesn't start."""
        program = self.program()
        port = self.port or _free_port()
        log = Path(self.log).expanduser()
        running = RunningVllm(_start([program, *self.arguments(port)], log), port, log)
        try:
            running.wait(self.ready)
        except BaseException:
            running.stop()
            raise
        return running

    def program(self) -> str:
        """Where vLLM is. Raises `UserError` if there is none."""
        program = shutil.which(self.command)
        if program is None:
            raise UserError(
                "vLLM is not installed here",
                got=f"no program `{self.command}` on the path",
                next_step="pip install vllm, give the path of the program, or use teacher=server or rollout=server",
            )
        return program

    def arguments(self, port: int) -> list[str]:
        """The command line after `vllm`."""
        revision = {"revision": self.revision} if self.revision else {}
        flags = {
            "host": HOST,
            "port": port,
            "served-model-name": self.model,
            **revision,
            **({} if _has_gpu() else CPU_FLAGS),
            **self.args,
            **self.speed_args,
        }
        return ["serve", self.model, *_flags(flags)]


@dataclass(frozen=True)
class RunningVllm:
    """A `vllm serve` of ours."""

    process: child_process.Child
    port: int
    log: Path

    @property
    def url(self) -> str:
        """The base URL an OpenAI client is given."""
        return f"http://{HOST}:{self.port}/v1"

    def wait(self, seconds: float) -> None:
        """Until it takes requests. Raises `StageFailed` if it ends before that, or takes longer."""
        end = time.monotonic() + seconds
        while not _healthy(f"http://{HOST}:{self.port}/health"):
            code = self.process.poll()
            if code is not None:
                raise self._failed(f"ended while starting ({child_process.end_in_words(code)})")
            if time.monotonic() > end:
                raise self._failed(f"has not answered within {seconds:g} s")
            time.sleep(PAUSE)

    def stop(self) -> None:
        """End it with all that it started; harmless when it has ended already."""
        child_process.stop(self.process)

    def _failed(self, what: str) -> StageFailed:
        return StageFailed(
            f"vLLM {what}", got=child_process.tail(self.log), next_step=f"see {self.log}, or try `vllm serve` by hand"
        )


def _start(command: list[str], log: Path) -> child_process.Child:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", str(KEEPER), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C goes to us, who end it
        )


def _flags(flags: Mapping[str, Flag]) -> list[str]:
    """`{a: 1, b: true}` -> `--a=1 --b`; false leaves a flag out."""
    given = {name.replace("_", "-").lstrip("-"): value for name, value in flags.items() if value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


def _has_gpu() -> bool:
    """Of NVIDIA or AMD."""
    devices = Path("/dev")
    return any(devices.glob("nvidia[0-9]*")) or (devices / "kfd").exists()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def _healthy(url: str) -> bool:
    """Whether it answers; not through a proxy."""
    import urllib.request

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
