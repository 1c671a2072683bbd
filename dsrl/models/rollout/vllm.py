"""Rollouts by a `vllm serve` of our own, which holds the GPUs only while there are replies to generate."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.images import Prompt
from dsrl.data.model import Model, Reply, Sampling
from dsrl.forecast.workload import CachedUsage
from dsrl.llm import Endpoint
from dsrl.llm.servers import Flag, RunningVllm, VllmServer
from dsrl.models.rollout.protocols import FREE, Rollout
from dsrl.models.rollout.server import ServerRollout

if TYPE_CHECKING:
    from dsrl.llm import ReplyCache
    from dsrl.pipeline.context import Context

NO_SERVER = "http://127.0.0.1:9/v1"
"""The URL when every reply is cached and no server is started."""
RAW_TEMPLATE = "{{ messages[0]['content'] }}"
"""Adds nothing to a prompt: base models get plain text, with the tokenizer's own begin-of-text token."""


@component("rollout.vllm")
class VllmRollout(Rollout):
    """Each stage starts the server for its model and ends it. Replies are cached like a teacher's, so a killed stage
    resumes where it was, and 64 replies after 8 cost 56."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(
        {"speed_args", "command", "log", "ready", "concurrency", "timeout", "outage"}
    )
    needs_weights: ClassVar[bool] = True

    args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags of `vllm serve` that may change replies, without the dashes: `quantization: fp8`."""
    speed_args: dict[str, Flag] = Field(default_factory=dict)
    """Further flags that only change the speed: `tensor-parallel-size: 2`."""
    command: str = "vllm"
    """The program, as a name on the PATH or as a path."""
    log: str = "vllm.log"
    ready: float = Field(default=1800.0, gt=0)
    """Seconds it may take to load the model."""
    concurrency: int = Field(default=256, gt=0)
    """Requests in flight."""
    timeout: float = Field(default=1800.0, gt=0)
    """Seconds that a request may take."""
    outage: float = Field(default=60.0, gt=0)
    """Seconds without any success after which a server that has died is restarted, once."""

    def check(self) -> None:
        """Raises `UserError` if vLLM is not installed."""
        VllmServer(model="any", command=self.command).program()

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        with self.session(model, context) as session:
            return session.generate(model, prompts, sampling, count, context)

    @contextmanager
    def session(self, model: Model, context: "Context") -> "Iterator[VllmSession]":
        """One server for all `generate` calls of a stage."""
        session = VllmSession(self, model.locate(), context)
        try:
            yield session
        finally:
            session.close()

    def cached_replies(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, cache: "ReplyCache"
    ) -> CachedUsage:
        return ServerRollout(endpoint=self.endpoint_for(model)).cached_replies(model, prompts, sampling, count, cache)

    def endpoint_for(self, model: Model, url: str = NO_SERVER) -> Endpoint:
        """The model's name stands in call digests for everything that can change a reply."""
        raw = {"add_special_tokens": True} if model.prompt_format == "raw" else {}
        return Endpoint(
            model=f"{model.name}-{digest([model.fingerprint(), 'vllm', self.args], 16)}",
            base_url=url,
            json_mode="text",
            price=FREE,
            extra=raw,
            concurrency=self.concurrency,
            timeout=self.timeout,
            outage=self.outage,
        )

    def server_for(self, model: Model) -> VllmServer:
        assert model.path is not None, "checked before the run"
        return VllmServer(
            model=model.path,
            revision=model.revision,
            args={**model_flags(model), "served-model-name": self.endpoint_for(model).model, **self.args},
            speed_args=self.speed_args,
            command=self.command,
            log=self.log,
            ready=self.ready,
        )


@dataclass
class VllmSession:
    """A server that starts with the first reply that is not cached, and stays up until `close`."""

    rollout: VllmRollout
    located: Model
    context: "Context"
    running: RunningVllm | None = None

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies per prompt, in order. The model and context are those of the session."""
        del model

        def request(url: str) -> list[list[Reply]]:
            rollout = ServerRollout(endpoint=self.rollout.endpoint_for(self.located, url))
            return asyncio.run(rollout.request_replies(prompts, sampling, count, context))

        cached = self.rollout.cached_replies(self.located, prompts, sampling, count, context.reply_cache)
        if cached.completions == len(prompts) * count:
            return request(NO_SERVER)
        for last in (False, True):
            if (replies := self._request_unless_dead(request, last=last)) is not None:
                return replies
            context.progress.warn(f"vLLM ended while generating replies and is started again; see {self.rollout.log}")
        raise AssertionError("the last start returns or raises")

    def close(self) -> None:
        """End the server and free its GPUs."""
        if self.running is not None:
            self.running.stop()
        self.running = None

    def _request_unless_dead(
        self, request: Callable[[str], list[list[Reply]]], *, last: bool
    ) -> list[list[Reply]] | None:
        """All replies; None if the server died on the way and may be started again."""
        if self.running is None:
            with self.context.progress.task(f"vLLM loads {self.located.name}"):
                self.running = self.rollout.server_for(self.located).start()
        running = self.running
        try:
            replies = request(running.url)
            complete = all(reply.error is None for own in replies for reply in own)
            if complete or last or running.process.poll() is None:
                return replies
        except StageFailed:
            if last or running.process.poll() is None:
                raise
        self.close()
        return None


def model_flags(model: Model) -> dict[str, Flag]:
    """Flags for the model's prompt format and context length, and no sampling defaults from its generation config."""
    raw: dict[str, Flag] = {"chat-template": RAW_TEMPLATE, "chat-template-content-format": "string"}
    path = Path(model.path or "") / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    own_length = config.get("text_config", config).get("max_position_embeddings")
    return {
        "dtype": model.dtype,
        "max-model-len": min(model.max_length, own_length or model.max_length),
        "generation-config": "vllm",
        "trust-remote-code": model.trust_remote_code,
        **(raw if model.prompt_format == "raw" else {}),
    }
