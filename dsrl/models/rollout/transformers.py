"""Rollouts on this machine: Hugging Face `generate` in a child process, on a GPU if there is one."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.images import Prompt, chat_content, prompt_images, prompt_text
from dsrl.data.model import Model, Reply, Sampling, Usage
from dsrl.forecast.workload import CachedUsage
from dsrl.llm import Spending
from dsrl.llm.request import Call
from dsrl.models.rollout.protocols import FREE, Rollout, count_cached

if TYPE_CHECKING:
    from dsrl.llm import ReplyCache
    from dsrl.pipeline.context import Context

MAX_TRIES = 2
"""Starts of the child process for one batch; it may crash once."""


class ReplyIndex(NamedTuple):
    """One reply to one prompt, both by number."""

    prompt: int
    reply: int


@component("rollout.transformers")
class TransformersRollout(Rollout):
    """Each reply has random numbers of its own (model, prompt, sampling, seed, index) and is cached with its batch: a
    killed scoring resumes where it was, and 64 replies after 8 cost 56."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("batch_size", "threads", "device"))
    needs_weights: ClassVar[bool] = True

    batch_size: int = Field(default=256, gt=0)
    """Replies generated at the same time; lower it if memory runs out."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads. None: one per core, a single one for tiny models."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0

    def check(self) -> None:
        """Raises `UserError` if the packages for local models are missing."""
        child_process.require("torch", "transformers")

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies per prompt, in order; an error if a prompt leaves no room for a reply."""
        located = model.locate()
        calls = self._calls(located, prompts, sampling)
        replies = {
            ReplyIndex(number, index): reply
            for number, call in enumerate(calls)
            for index in range(count)
            if (reply := context.reply_cache.get(call.digest, index)) is not None
        }
        context.ledger.reuse((context.stage, "model", model.name), replies.values(), FREE)
        missing = [
            batch
            for batch in make_batches(prompts, count, self.batch_size)
            if not all(index in replies for index in batch)
        ]
        with context.progress.task("rollouts", total=len(prompts) * count) as progress:
            progress.advance(len(prompts) * count - sum(map(len, missing)))
            for batch in missing:
                for index, reply in self._generate_batch(located, batch, prompts, calls, sampling, context).items():
                    replies.setdefault(index, reply)
                progress.advance(len(batch))
        if missing:
            self._process(context).ask({"park": True})
        return [[replies[ReplyIndex(number, index)] for index in range(count)] for number in range(len(prompts))]

    def cached_replies(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, cache: "ReplyCache"
    ) -> CachedUsage:
        return count_cached(self._calls(model, prompts, sampling), count, cache)

    def _calls(self, model: Model, prompts: Sequence[Prompt], sampling: Sampling) -> list[Call]:
        """What the replies depend on, prompt by prompt."""
        common = {"model": model.fingerprint(), "engine": "transformers", "seed": self.seed, **asdict(sampling)}
        return [
            Call.of({**common, "messages": [{"role": "user", "content": chat_content(prompt)}]}, None)
            for prompt in prompts
        ]

    def _generate_batch(
        self,
        model: Model,
        batch: Sequence[ReplyIndex],
        prompts: Sequence[Prompt],
        calls: Sequence[Call],
        sampling: Sampling,
        context: "Context",
    ) -> dict[ReplyIndex, Reply]:
        """The replies of one batch, cached before use."""
        request = {
            "model": asdict(model),
            "device": self.device,
            "prompts": [
                {
                    "text": prompt_text(prompts[index.prompt]),
                    "images": [str(context.images.path(image)) for image in prompt_images(prompts[index.prompt])],
                }
                for index in batch
            ],
            "streams": [digest([self.seed, chat_content(prompts[index.prompt]), index.reply], 32) for index in batch],
            "sampling": asdict(sampling),
        }
        replies = {}
        for index, answer in zip(batch, self._process(context).ask(request)["replies"], strict=True):
            call = calls[index.prompt]
            reply = Reply(**{**answer, "usage": Usage(**answer["usage"]), "call": call.id(index.reply)})
            if reply.error is None:
                context.reply_cache.put(call.digest, call.identity, {index.reply: reply}, model.name)
            replies[index] = reply
        spending = Spending(
            requests=1,
            completions=sum(reply.error is None for reply in replies.values()),
            errors=sum(reply.error is not None for reply in replies.values()),
            input_tokens=sum(reply.usage.input_tokens for reply in replies.values()),
            output_tokens=sum(reply.usage.output_tokens for reply in replies.values()),
        )
        context.ledger.add((context.stage, "model", model.name), spending)
        return replies

    def _process(self, context: "Context") -> "RolloutProcess":
        """One child for the whole run."""
        log = context.run_dir / "rollouts.log"

        def close(process: RolloutProcess) -> None:
            process.close()

        return context.keep(f"rollouts {self}", lambda: RolloutProcess(log, self.threads), close)


class RolloutProcess:
    """The parent's side of the child process: one JSON line per request and per answer. The first request starts it."""

    def __init__(self, log: Path, threads: int | None) -> None:
        self.log = log
        self.threads = threads
        self._child: child_process.Child | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises `StageFailed` if the child fails, or crashes twice on this request."""
        line, ending = json.dumps(request) + "\n", ""
        for _ in range(MAX_TRIES):
            answer = self._exchange(line)
            if answer.endswith("\n"):
                return self._checked(json.loads(answer))
            ending = self.close()
        raise StageFailed(
            "the rollout process crashed twice on the same prompts",
            got=f"{ending}; the end of {self.log}:\n{child_process.tail(self.log)}",
            next_step="lower rollout.batch_size if memory ran out, then run again: finished replies are kept",
        )

    def close(self) -> str:
        """End the child and its model. Returns how it ended."""
        if self._child is None:
            return ""
        child_process.stop(self._child)
        ending = child_process.end_in_words(self._child.returncode)
        self._child = None
        return ending

    def _exchange(self, line: str) -> str:
        """The child's answer; not a whole line if it crashed."""
        if self._child is None:
            self._child = child_process.start(
                "dsrl.models.rollout.transformers_worker",
                [],
                self.log,
                self.threads,
                subprocess.PIPE,
                secrets=child_process.HUB_SECRETS,
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._child.stdout.readline()

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "failed" not in answer:
            return answer
        out_of_memory = answer["kind"] == "memory"
        raise StageFailed(
            f"generating rollouts: {'out of memory' if out_of_memory else 'failed'}",
            got=answer["failed"],
            next_step="give a smaller rollout.batch_size" if out_of_memory else f"see {self.log}",
        )


def make_batches(prompts: Sequence[Prompt], count: int, size: int) -> list[list[ReplyIndex]]:
    """Every prompt `count` times in batches of `size`: prompts of similar length together, those with images last.

    All first replies come before all second ones, and so on (several at a time if there are fewer prompts than `size`):
    which replies share a batch, and with it their rounding, is the same after an interruption and when more replies are
    asked for later.
    """

    def order(number: int) -> tuple[bool, int, str, list[str]]:
        text, images = prompt_text(prompts[number]), [image.digest for image in prompt_images(prompts[number])]
        return bool(images), len(text), text, images

    by_length = sorted(range(len(prompts)), key=order)
    at_once = max(1, size // max(1, len(prompts)))
    rows = [
        ReplyIndex(number, reply)
        for first in range(0, count, at_once)
        for number in by_length
        for reply in range(first, min(first + at_once, count))
    ]
    whole = at_once * len(prompts)
    blocks = [rows[start : start + whole] for start in range(0, len(rows), whole or 1)]
    return [block[start : start + size] for block in blocks for start in range(0, len(block), size)]
