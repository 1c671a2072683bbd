"""Rollouts on this machine: Hugging Face `generate` in a child process, on a GPU where there is one."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import Component, component
from dsrl.core.digest import digest
from dsrl.data.images import Prompt, chat_content, prompt_images, prompt_text
from dsrl.data.model import Model, Reply, Sampling, Usage
from dsrl.forecast.workload import Held
from dsrl.llm import Price, Spending
from dsrl.llm.request import Call
from dsrl.models.rollout.batching import Row, batches
from dsrl.models.rollout.cached import held
from dsrl.models.rollout.transformers_process import RolloutProcess

if TYPE_CHECKING:
    from dsrl.llm import CallsStore
    from dsrl.pipeline.context import Context

FREE = Price(input=0.0, output=0.0, date="2026-11-20")
"""Of replies that this machine draws itself."""


@component("rollout.transformers")
class TransformersRollout(Component):
    """Each reply is drawn from random numbers of its own (model, prompt, sampling, seed, index) and put into the calls
    store with its batch: a killed scoring goes on where it was, and 64 replies after 8 cost 56."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("batch_size", "threads", "device"))
    needs_weights: ClassVar[bool] = True

    batch_size: int = Field(default=256, gt=0)
    """Replies drawn at the same time; lower it when memory runs out."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads; None: one a core, a single one for tiny models."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0

    def check(self) -> None:
        """Raises `UserError` where the packages for local models are missing."""
        child_process.require("torch", "transformers")

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies to each prompt, in order; an error where a prompt leaves no room for one."""
        located = model.locate()
        calls = self._calls(located, prompts, sampling)
        replies = _stored(calls, count, context)
        context.ledger.reuse((context.stage, "model", model.name), replies.values(), FREE)
        plan = [batch for batch in batches(prompts, count, self.batch_size) if not all(row in replies for row in batch)]
        with context.progress.task("rollouts", total=len(prompts) * count) as progress:
            progress.advance(len(prompts) * count - sum(map(len, plan)))
            for batch in plan:
                asked = [(prompts[row.prompt], calls[row.prompt], row) for row in batch]
                for row, reply in self._draw(located, asked, sampling, context).items():
                    replies.setdefault(row, reply)
                progress.advance(len(batch))
        if plan:
            self._process(context).ask({"park": True})
        return [[replies[Row(number, index)] for index in range(count)] for number in range(len(prompts))]

    def held(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, store: "CallsStore"
    ) -> Held:
        """What is in the store of these replies, for a forecast; `model` is located."""
        return held(self._calls(model, prompts, sampling), count, store)

    def _calls(self, model: Model, prompts: Sequence[Prompt], sampling: Sampling) -> list[Call]:
        """What the replies depend on, prompt by prompt."""
        common = {"model": model.fingerprint(), "engine": "transformers", "seed": self.seed, **asdict(sampling)}
        return [
            Call.of({**common, "messages": [{"role": "user", "content": chat_content(prompt)}]}, None)
            for prompt in prompts
        ]

    def _draw(
        self, model: Model, batch: list[tuple[Prompt, Call, Row]], sampling: Sampling, context: "Context"
    ) -> dict[Row, Reply]:
        """One batch, in the store before it is used."""
        question = {
            "model": asdict(model),
            "device": self.device,
            "prompts": [_sent(prompt, context) for prompt, _, _ in batch],
            "streams": [digest([self.seed, chat_content(prompt), row.reply], 32) for prompt, _, row in batch],
            "sampling": asdict(sampling),
        }
        answers = self._process(context).ask(question)["replies"]
        pairs = zip(batch, answers, strict=True)
        replies = {row: _reply(answer, call.id(row.reply)) for (_, call, row), answer in pairs}
        for _, call, row in batch:
            if replies[row].error is None:
                context.calls.put(call.digest, call.identity, {row.reply: replies[row]}, model.name)
        self._book(context, model, list(replies.values()))
        return replies

    def _process(self, context: "Context") -> RolloutProcess:
        """One child for the whole run."""
        log = context.run_dir / "rollouts.log"
        return context.keep(f"rollouts {self}", lambda: RolloutProcess(log, self.threads), _close)

    def _book(self, context: "Context", model: Model, replies: Sequence[Reply]) -> None:
        spending = Spending(
            requests=1,
            completions=sum(reply.error is None for reply in replies),
            errors=sum(reply.error is not None for reply in replies),
            input_tokens=sum(reply.usage.input_tokens for reply in replies),
            output_tokens=sum(reply.usage.output_tokens for reply in replies),
        )
        context.ledger.add((context.stage, "model", model.name), spending)


def _stored(calls: Sequence[Call], count: int, context: "Context") -> dict[Row, Reply]:
    """The replies that are in the calls store already."""
    found = {}
    for number, call in enumerate(calls):
        for index in range(count):
            reply = context.calls.get(call.digest, index)
            if reply is not None:
                found[Row(number, index)] = reply
    return found


def _sent(prompt: Prompt, context: "Context") -> dict[str, Any]:
    """A prompt as the child reads it, with the files of its pictures."""
    return {"text": prompt_text(prompt), "images": [str(context.images.path(image)) for image in prompt_images(prompt)]}


def _close(process: RolloutProcess) -> None:
    process.close()


def _reply(answer: dict[str, Any], call: str) -> Reply:
    return Reply(**{**answer, "usage": Usage(**answer["usage"]), "call": call})
