"""Rollouts of a model that is served behind an OpenAI-compatible URL."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.data.images import Prompt, chat_content
from dsrl.data.model import Model, Reply, Sampling
from dsrl.forecast.workload import CachedUsage
from dsrl.llm import Endpoint, Request
from dsrl.llm.client import gather_or_cancel
from dsrl.models.rollout.protocols import Rollout, count_cached

if TYPE_CHECKING:
    from dsrl.llm import ReplyCache
    from dsrl.pipeline.context import Context


@component("rollout.server")
class ServerRollout(Rollout):
    """Chat completions, cached like the teacher's."""

    endpoint: Endpoint

    def check(self) -> None:
        """Raises `UserError` for a URL or key with which no request can succeed."""
        self.endpoint.check()

    @property
    def served_by(self) -> Endpoint:
        return self.endpoint

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies per prompt, in order. Raises `UserError` for a model that the server does not offer."""
        if model.prompt_format == "raw":
            raise UserError(
                "rollout=server sends chat turns, but this model takes plain text",
                got="model.prompt_format=raw",
                allowed="chat",
                next_step="use rollout=transformers, or a model with prompt_format=chat",
            )
        if model.name != self.endpoint.model:
            raise UserError(
                "rollout=server: the server offers another model than the one to be measured",
                got=f"model {model.name}",
                allowed=self.endpoint.model,
                next_step="serve it and give rollout.endpoint.model, or use rollout=transformers",
            )
        return asyncio.run(self.request_replies(prompts, sampling, count, context))

    async def request_replies(
        self, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies per prompt of whatever model the endpoint offers."""
        with context.progress.task("rollouts", total=len(prompts) * count) as progress:
            async with context.connect(self.endpoint, "model") as client:

                async def complete(prompt: Prompt) -> list[Reply]:
                    replies = await client.complete(self.request(prompt, sampling), count)
                    progress.advance(count)
                    return replies

                return await gather_or_cancel(complete(prompt) for prompt in prompts)

    def cached_replies(
        self,
        model: Model,  # noqa: ARG002 - the endpoint's name for it is part of the call
        prompts: Sequence[Prompt],
        sampling: Sampling,
        count: int,
        cache: "ReplyCache",
    ) -> CachedUsage:
        return count_cached([self.endpoint.call(self.request(prompt, sampling)) for prompt in prompts], count, cache)

    def request(self, prompt: Prompt, sampling: Sampling) -> Request:
        """One user turn."""
        return self.endpoint.request(
            [{"role": "user", "content": chat_content(prompt)}],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
        )
