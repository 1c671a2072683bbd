"""Servers that a run starts itself, on first use, and stops at its end; `vllm serve` is the one that ships."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import ClassVar, Self

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import Component, component, to_key_value
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed, UserError
from dsrl.llm.endpoint import Endpoint, RunningServer

HOST = "127.0.0.1"
POLL_SECONDS = 0.5
CHILD = Path(__file__).with_name("vllm_server_child.py")
"""Run as a file, so that vLLM does not inherit the path from which dsrl is imported."""
Flag = str | int | float | bool
CPU_FLAGS: dict[str, Flag] = {"no-enable-chunked-prefill": True}
"""Without a GPU, vLLM 0.27.1 crashes on a seeded request whose prompt is prefilled in chunks."""


class Servers:
    """The servers of a run: each is started on first use; leaving the context manager stops all of them."""

    def __init__(self) -> None:
        self._running: dict[str, RunningServer] = {}
        self._lock = Lock()

    def url(self, endpoint: Endpoint) -> str | None:
        """Base URL of the endpoint, starting its server if needed; None for OpenAI's public URL."""
        if endpoint.server is None:
            return endpoint.base_url
        key = digest(to_key_value(endpoint.server))
        with self._lock:
            if key not in self._running:
                self._running[key] = endpoint.server.start()
            return self._running[key].url

    def close(self) -> None:
        with self._lock:
            while self._running:
                self._running.popitem()[1].stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@component("llm.vllm_server")
class VllmServer(Component):
    """A model served by vLLM on this machine; needs `pip install vllm`, here or in an environment on the path."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"speed_args", "command", "port", "log", "ready"})

    model: str
    """Folder or hub id; also the served model name."""
    revision: str | None = None
    args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags of `vllm serve` that can change replies, without the dashes: `max-model-len: 8192`,
    `enable-prefix-caching: true`. They are part of the cache key of the replies."""
    speed_args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags that change the speed only: `tensor-parallel-size: 2`."""
    command: str = "vllm"
    port: int | None = Field(default=None, gt=0, lt=65536)
    """None picks a free port."""
    log: str = "vllm.log"
    """File to which the server's output is appended."""
    ready: float = Field(default=1800.0, gt=0)
    """Seconds allowed for loading the model."""

    def start(self) -> "RunningVllm":
        """Return once it accepts requests. Raises `UserError` without vLLM, `StageFailed` if it fails to start."""
        program = self.program()
        port = self.port or _free_port()
        log = Path(self.log).expanduser()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"{child_process.START_LINE} {program}\n".encode())
            output.flush()
            child = subprocess.Popen(
                [sys.executable, "-I", str(CHILD), program, *self.arguments(port)],
                env=child_process.inherited_environment(os.environ, child_process.HUB_SECRETS),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only us, and we stop the server
            )
        running = RunningVllm(child, port, log)
        try:
            running.wait(self.ready)
        except BaseException:
            running.stop()
            raise
        return running

    def program(self) -> str:
        """Path of the vLLM executable. Raises `UserError` if there is none."""
        program = shutil.which(self.command)
        if program is None:
            raise UserError(
                "vLLM is not installed here",
                got=f"no program `{self.command}` on the path",
                next_step="pip install vllm, give the path of the program, or use teacher=server or rollout=server",
            )
        return program

    def arguments(self, port: int) -> list[str]:
        """The command line after `vllm`; a flag that is false is left out."""
        flags = {
            "host": HOST,
            "port": port,
            "served-model-name": self.model,
            **({"revision": self.revision} if self.revision else {}),
            **({} if has_gpu() else CPU_FLAGS),
            **self.args,
            **self.speed_args,
        }
        given = {name.replace("_", "-").lstrip("-"): value for name, value in flags.items() if value is not False}
        options = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
        return ["serve", self.model, *options]


@dataclass(frozen=True)
class RunningVllm:
    """A running `vllm serve`."""

    process: child_process.Child
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def wait(self, seconds: float) -> None:
        """Return once it accepts requests. Raises `StageFailed` if it exits first or takes longer."""
        end = time.monotonic() + seconds
        while not self._is_healthy():
            code = self.process.poll()
            if code is not None:
                raise self._failed(f"exited while starting ({child_process.end_in_words(code)})")
            if time.monotonic() > end:
                raise self._failed(f"did not answer within {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop it with all its children; does nothing if it has already exited."""
        child_process.stop(self.process)

    def _is_healthy(self) -> bool:
        import urllib.request

        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://{HOST}:{self.port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _failed(self, what: str) -> StageFailed:
        return StageFailed(
            f"vLLM {what}", got=child_process.tail(self.log), next_step=f"see {self.log}, or try `vllm serve` by hand"
        )


def has_gpu() -> bool:
    """Whether there is a GPU of NVIDIA or AMD, by its device file."""
    devices = Path("/dev")
    return any(devices.glob("nvidia[0-9]*")) or (devices / "kfd").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
