"""Rollouts of a model that somebody serves behind an OpenAI-compatible URL."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.data.images import Prompt, chat_content
from dsrl.data.model import Model, Reply, Sampling
from dsrl.forecast.workload import Held
from dsrl.llm import Client, Endpoint, Request
from dsrl.llm.client import together
from dsrl.models.rollout.cached import held
from dsrl.pipeline.progress.progress import Task

if TYPE_CHECKING:
    from dsrl.llm import CallsStore
    from dsrl.pipeline.context import Context


@component("rollout.server")
class ServerRollout(Component):
    """Chat completions, through the calls store like the teacher's."""

    endpoint: Endpoint

    def check(self) -> None:
        """Raises `UserError` for a URL or key with which no request can succeed."""
        self.endpoint.check()

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies to each prompt, in order. Raises `UserError` for a model that this server doesn't offer."""
        self._check(model)
        return asyncio.run(self.replies(prompts, sampling, count, context))

    async def replies(
        self, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """Of whatever the endpoint offers, asked in chat turns."""
        requests = [self.request(prompt, sampling) for prompt in prompts]
        with context.progress.task("rollouts", total=len(prompts) * count) as progress:
            async with context.connect(self.endpoint, "model") as client:
                return await together(_ask(client, request, count, progress) for request in requests)

    def held(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, store: "CallsStore"
    ) -> Held:
        """What is in the store of these replies, for a forecast."""
        del model  # known by the endpoint's name for it
        return held([self.endpoint.call(self.request(prompt, sampling)) for prompt in prompts], count, store)

    def request(self, prompt: Prompt, sampling: Sampling) -> Request:
        """One user turn."""
        return self.endpoint.request(
            [{"role": "user", "content": chat_content(prompt)}],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
        )

    def _check(self, model: Model) -> None:
        if model.prompt_format == "raw":
            raise UserError(
                "rollout=server speaks in chat turns, and this model is asked in plain text",
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


async def _ask(client: Client, request: Request, count: int, progress: Task) -> list[Reply]:
    replies = await client.complete(request, count)
    progress.advance(count)
    return replies
