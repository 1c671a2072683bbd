"""Rollouts by a `vllm serve` of our own, which holds the GPUs only while there is something to draw."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.images import Prompt
from dsrl.data.model import Model, Reply, Sampling
from dsrl.forecast.workload import Held
from dsrl.llm import Endpoint, Price
from dsrl.llm.vllm_server import Flag, RunningVllm, VllmServer
from dsrl.models.rollout.cached import held
from dsrl.models.rollout.server import ServerRollout

if TYPE_CHECKING:
    from dsrl.llm import CallsStore
    from dsrl.pipeline.context import Context

FREE = Price(input=0.0, output=0.0, date="2026-11-20")
"""Of replies that this machine draws itself."""
NOWHERE = "http://127.0.0.1:9/v1"
"""Stands for a server that isn't started, because every reply is in the store."""
RAW_TEMPLATE = "{{ messages[0]['content'] }}"
"""Adds nothing to a prompt: base models are asked in plain text, with the tokenizer's own beginning of a text."""


@component("rollout.vllm")
class VllmRollout(Component):
    """Each stage starts the server for the model at hand and ends it; replies go through the calls store like a
    teacher's, so a killed stage goes on where it was and 64 replies after 8 cost 56."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(
        {"speed_args", "command", "log", "ready", "concurrency", "timeout", "outage"}
    )
    needs_weights: ClassVar[bool] = True

    args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags of `vllm serve` that may change replies, without the dashes: `quantization: fp8`."""
    speed_args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags that only change how fast they come: `tensor-parallel-size: 2`."""
    command: str = "vllm"
    """The program, on the path or as a path."""
    log: str = "vllm.log"
    ready: float = Field(default=1800.0, gt=0)
    """Seconds it may take to load the model."""
    concurrency: int = Field(default=256, gt=0)
    """Requests in flight."""
    timeout: float = Field(default=1800.0, gt=0)
    """Seconds that one of them may take."""
    outage: float = Field(default=60.0, gt=0)
    """Seconds without any success after which the server is looked at: one that has died is started once more."""

    def check(self) -> None:
        """Raises `UserError` where there is no vLLM."""
        VllmServer(model="any", command=self.command).program()

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies to each prompt, in order."""
        with self.standing(model, context) as server:
            return server.generate(model, prompts, sampling, count, context)

    @contextmanager
    def standing(self, model: Model, context: "Context") -> "Iterator[Standing]":
        """One server for all that a stage asks of a model."""
        server = Standing(self, model.locate(), context)
        try:
            yield server
        finally:
            server.close()

    def held(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, store: "CallsStore"
    ) -> Held:
        """What is in the store of these replies, for a forecast; `model` is located."""
        return _held(self._endpoint(model), prompts, sampling, count, store)

    def _endpoint(self, model: Model) -> Endpoint:
        """Under whose model's name whatever can change a reply is known."""
        raw = {"add_special_tokens": True} if model.prompt_format == "raw" else {}
        return Endpoint(
            model=f"{model.name}-{digest([model.fingerprint(), 'vllm', self.args], 16)}",
            base_url=NOWHERE,
            json_mode="text",
            price=FREE,
            extra=raw,
            concurrency=self.concurrency,
            timeout=self.timeout,
            outage=self.outage,
        )

    def _server(self, model: Model, name: str) -> VllmServer:
        assert model.path is not None, "checked before the run"
        return VllmServer(
            model=model.path,
            revision=model.revision,
            args={**_flags(model), "served-model-name": name, **self.args},
            speed_args=self.speed_args,
            command=self.command,
            log=self.log,
            ready=self.ready,
        )


def _held(endpoint: Endpoint, prompts: Sequence[Prompt], sampling: Sampling, count: int, store: "CallsStore") -> Held:
    rollout = ServerRollout(endpoint=endpoint)
    return held([endpoint.call(rollout.request(prompt, sampling)) for prompt in prompts], count, store)


@dataclass
class Standing:
    """A server that is started when the first reply is drawn that the store lacks."""

    rollout: VllmRollout
    located: Model
    context: "Context"
    running: RunningVllm | None = None

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies to each prompt, in order."""
        del model  # the one that it was made for
        endpoint = self.rollout._endpoint(self.located)

        def drawn(url: str) -> list[list[Reply]]:
            rollout = ServerRollout(endpoint=replace(endpoint, base_url=url))
            return asyncio.run(rollout.replies(prompts, sampling, count, context))

        if _held(endpoint, prompts, sampling, count, context.calls).completions == len(prompts) * count:
            return drawn(NOWHERE)
        for last in (False, True):
            if (found := self._unless_it_died(drawn, last=last)) is not None:
                return found
            context.progress.warn(f"vLLM has ended while it drew replies and is started again; see {self.rollout.log}")
        raise AssertionError("the last start returns or raises")

    def close(self) -> None:
        """End the server, and give its GPUs back."""
        if self.running is not None:
            self.running.stop()
        self.running = None

    def _started(self) -> RunningVllm:
        if self.running is None:
            endpoint = self.rollout._endpoint(self.located)
            with self.context.progress.task(f"vLLM loads {self.located.name}"):
                self.running = self.rollout._server(self.located, endpoint.model).start()
        return self.running

    def _unless_it_died(self, drawn: Callable[[str], list[list[Reply]]], *, last: bool) -> list[list[Reply]] | None:
        """All replies; None where the server died on the way and may be started again."""
        running = self._started()
        try:
            found = drawn(running.url)
            complete = all(reply.error is None for replies in found for reply in replies)
            if complete or last or running.process.poll() is None:
                return found
        except StageFailed:
            if last or running.process.poll() is None:
                raise
        self.close()
        return None


def _flags(model: Model) -> dict[str, Flag]:
    """The model's own way of speaking; nobody else's defaults of sampling."""
    raw: dict[str, Flag] = {"chat-template": RAW_TEMPLATE, "chat-template-content-format": "string"}
    return {
        "dtype": model.dtype,
        "max-model-len": _context(model),
        "generation-config": "vllm",
        "trust-remote-code": model.trust_remote_code,
        **(raw if model.prompt_format == "raw" else {}),
    }


def _context(model: Model) -> int:
    """The configured one, or the model's own where that is shorter and can be read here."""
    path = Path(model.path or "") / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    own = config.get("text_config", config).get("max_position_embeddings")
    return min(model.max_length, own or model.max_length)
