"""The child process behind `TransformersRollout`: one JSON line per request and per answer.

It ends when its standard input does, and so with its parent, however that ended.
"""

import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any, NoReturn, TextIO

import torch

from dsrl.core import child_process
from dsrl.core.errors import UserError
from dsrl.data.model import Model, Reply, Sampling, Usage
from dsrl.models import huggingface


@dataclass
class LoadedModel:
    """The one model in memory."""

    description: Model
    weights: Any
    tokenizer: Any
    limit: int
    """Longest prompt plus reply, in tokens."""

    @cached_property
    def processor(self) -> Any:
        """For prompts with images; loaded when the first comes."""
        from dsrl.models import vision

        return vision.load_processor(self.description)


class Worker:
    """Holds one model at a time; another one replaces it."""

    def __init__(self) -> None:
        self.loaded: LoadedModel | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`{"replies"}` for `{"model", "device", "prompts", "streams", "sampling"}`; `{}` for `{"park": true}`, which
        frees the GPU's memory for whatever comes next, such as training."""
        if request.get("park"):
            if self.loaded is not None and torch.cuda.is_available():
                self.loaded.weights.to("cpu")
                torch.cuda.empty_cache()
            return {}
        loaded = self._load(Model(**request["model"]), huggingface.pick_device(request["device"]))
        replies = generate_replies(loaded, request["prompts"], request["streams"], Sampling(**request["sampling"]))
        return {"replies": [asdict(reply) for reply in replies]}

    def _load(self, model: Model, device: str) -> LoadedModel:
        if self.loaded is None or self.loaded.description != model:
            self.loaded = None  # so that two models are never in memory
            weights = huggingface.load_model(model, device)
            self.loaded = LoadedModel(
                model, weights, huggingface.load_tokenizer(model), huggingface.context_length(model, weights)
            )
        self.loaded.weights.to(device)
        return self.loaded


def generate_replies(
    loaded: LoadedModel, prompts: list[dict[str, Any]], streams: list[str], sampling: Sampling
) -> list[Reply]:
    """One reply per prompt; prompts with images form a batch of their own."""
    replies: dict[int, Reply] = {}
    for with_images in (False, True):
        rows = [row for row, prompt in enumerate(prompts) if bool(prompt["images"]) == with_images]
        generate = reply_to_images if with_images else reply_to_texts
        own = generate(loaded, [prompts[row] for row in rows], [streams[row] for row in rows], sampling)
        replies |= dict(zip(rows, own, strict=True))
    return [replies[row] for row in range(len(prompts))]


def reply_to_texts(
    loaded: LoadedModel, prompts: list[dict[str, Any]], streams: list[str], sampling: Sampling
) -> list[Reply]:
    """One reply per prompt; an error for a prompt that leaves no room for one."""
    prompt_format = loaded.description.prompt_format
    ids = [huggingface.encode_prompt(loaded.tokenizer, prompt["text"], prompt_format) for prompt in prompts]
    room = [min(loaded.limit - len(prompt), sampling.max_tokens) for prompt in ids]
    asks = {row: huggingface.Ask(ids[row], streams[row], limit) for row, limit in enumerate(room) if limit > 0}
    drawn = huggingface.draw(loaded.weights, loaded.tokenizer, list(asks.values()), sampling) if asks else []
    return collect_replies(loaded, list(map(len, ids)), dict(zip(asks, drawn, strict=True)))


def reply_to_images(
    loaded: LoadedModel, prompts: list[dict[str, Any]], streams: list[str], sampling: Sampling
) -> list[Reply]:
    """One reply per prompt with images; an error for a prompt that leaves no room for one."""
    from dsrl.models import vision

    if not prompts:
        return []
    shown, prompt_format = [vision.Shown(**prompt) for prompt in prompts], loaded.description.prompt_format
    inputs = vision.encode(loaded.processor, shown, prompt_format)
    lengths = vision.lengths(inputs)
    fitting = [row for row, length in enumerate(lengths) if length < loaded.limit]
    if not fitting:
        return collect_replies(loaded, lengths, {})
    if len(fitting) < len(shown):
        inputs = vision.encode(loaded.processor, [shown[row] for row in fitting], prompt_format)
    room = [min(loaded.limit - lengths[row], sampling.max_tokens) for row in fitting]
    drawn = huggingface.draw_from(
        loaded.weights, loaded.tokenizer, inputs, [streams[row] for row in fitting], room, sampling
    )
    return collect_replies(loaded, lengths, dict(zip(fitting, drawn, strict=True)))


def collect_replies(loaded: LoadedModel, lengths: list[int], drawn: dict[int, huggingface.Drawn]) -> list[Reply]:
    """Replies by row; `lengths` are the prompts' tokens, and rows without a completion had no room for one."""
    replies = []
    for row, length in enumerate(lengths):
        if completion := drawn.get(row):
            text = loaded.tokenizer.decode(completion.ids, skip_special_tokens=True)
            usage = Usage(input_tokens=length, output_tokens=len(completion.ids))
            replies.append(Reply(text=text, finish_reason=completion.finish_reason, usage=usage))
        else:
            error = f"the prompt's {length} tokens leave no room for a reply in the model's {loaded.limit}"
            replies.append(Reply(text=None, error=error))
    return replies


def failure(error: Exception) -> dict[str, str]:
    """The answer for the parent; the traceback goes to the log."""
    traceback.print_exception(error)
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {"failed": message, "kind": "memory" if memory else "other"}


def serve(requests: "SimpleQueue[str]", answers: TextIO) -> NoReturn:
    """Answer requests until the process ends with its parent."""
    worker = Worker()
    while True:
        try:
            answer = worker.answer(json.loads(requests.get()))
        except Exception as error:  # noqa: BLE001 - sent to the parent, which fails the stage
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Answers go to the real standard output; whatever libraries print there goes to the log."""
    requests: SimpleQueue[str] = SimpleQueue()
    child_process.end_with_parent(sys.stdin, requests.put)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(requests, answers)


if __name__ == "__main__":
    main()
