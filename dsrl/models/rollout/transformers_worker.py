"""The child process behind `TransformersRollout`. It answers each JSON line with another.

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
class Loaded:
    """The one model in memory."""

    description: Model
    weights: Any
    tokenizer: Any
    limit: int
    """Longest prompt plus reply, in tokens."""

    @cached_property
    def processor(self) -> Any:
        """For prompts with pictures. Imported when the first comes."""
        from dsrl.models import vision

        return vision.load_processor(self.description)


class Worker:
    """Holds one model at a time; another one takes its place."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`{"replies"}` for `{"model", "device", "prompts", "streams", "sampling"}`; `{}` for `{"park": true}`."""
        if request.get("park"):
            self._park()
            return {}
        loaded = self._load(Model(**request["model"]), huggingface.pick_device(request["device"]))
        replies = draw_replies(loaded, request["prompts"], request["streams"], Sampling(**request["sampling"]))
        return {"replies": [asdict(reply) for reply in replies]}

    def _load(self, model: Model, device: str) -> Loaded:
        if self.loaded is None or self.loaded.description != model:
            self.loaded = None
            weights = huggingface.load_model(model, device)
            self.loaded = Loaded(
                model, weights, huggingface.load_tokenizer(model), huggingface.context_length(model, weights)
            )
        self.loaded.weights.to(device)
        return self.loaded

    def _park(self) -> None:
        """Give the GPU's memory back to whoever comes next, such as a training."""
        if self.loaded is not None and torch.cuda.is_available():
            self.loaded.weights.to("cpu")
            torch.cuda.empty_cache()


def draw_replies(loaded: Loaded, prompts: list[dict[str, Any]], streams: list[str], sampling: Sampling) -> list[Reply]:
    """One reply to each prompt: those with pictures make a batch of their own."""
    replies: dict[int, Reply] = {}
    for shown in (False, True):
        rows = [row for row, prompt in enumerate(prompts) if bool(prompt["images"]) == shown]
        own = [prompts[row] for row in rows], [streams[row] for row in rows]
        found = (_of_pictures if shown else _of_texts)(loaded, *own, sampling)
        replies |= dict(zip(rows, found, strict=True))
    return [replies[row] for row in range(len(prompts))]


def _of_pictures(loaded: Loaded, prompts: list[dict[str, Any]], streams: list[str], sampling: Sampling) -> list[Reply]:
    """One reply to each prompt with pictures; one that leaves no room gets an error."""
    from dsrl.models import vision

    if not prompts:
        return []
    asked = [vision.Shown(**prompt) for prompt in prompts]
    form, tokenizer = loaded.description.prompt_format, loaded.tokenizer
    inputs = vision.encode(loaded.processor, asked, form)
    sizes = vision.lengths(inputs)
    fitting = [row for row, size in enumerate(sizes) if size < loaded.limit]
    if not fitting:
        return [_too_long(size, loaded.limit) for size in sizes]
    if len(fitting) < len(asked):
        inputs = vision.encode(loaded.processor, [asked[row] for row in fitting], form)
    room = [min(loaded.limit - sizes[row], sampling.max_tokens) for row in fitting]
    drawn = huggingface.draw_from(loaded.weights, tokenizer, inputs, [streams[row] for row in fitting], room, sampling)
    by_row = dict(zip(fitting, drawn, strict=True))
    return [
        _reply(tokenizer, size, by_row[row]) if row in by_row else _too_long(size, loaded.limit)
        for row, size in enumerate(sizes)
    ]


def _of_texts(loaded: Loaded, prompts: list[dict[str, Any]], streams: list[str], sampling: Sampling) -> list[Reply]:
    """One reply to each prompt; a prompt that leaves no room for one gets an error."""
    form = loaded.description.prompt_format
    ids = [huggingface.encode_prompt(loaded.tokenizer, prompt["text"], form) for prompt in prompts]
    room = [min(loaded.limit - len(prompt), sampling.max_tokens) for prompt in ids]
    asks = {row: huggingface.Ask(ids[row], streams[row], limit) for row, limit in enumerate(room) if limit > 0}
    drawn = huggingface.draw(loaded.weights, loaded.tokenizer, list(asks.values()), sampling) if asks else []
    by_row = dict(zip(asks, drawn, strict=True))
    return [
        _reply(loaded.tokenizer, len(prompt), by_row[row]) if row in by_row else _too_long(len(prompt), loaded.limit)
        for row, prompt in enumerate(ids)
    ]


def _reply(tokenizer: Any, num_prompt: int, drawn: huggingface.Drawn) -> Reply:
    text = tokenizer.decode(drawn.ids, skip_special_tokens=True)
    usage = Usage(input_tokens=num_prompt, output_tokens=len(drawn.ids))
    return Reply(text=text, finish_reason=drawn.finish_reason, usage=usage)


def _too_long(num_prompt: int, limit: int) -> Reply:
    return Reply(text=None, error=f"the prompt's {num_prompt} tokens leave no room for a reply in the model's {limit}")


def failure(error: Exception) -> dict[str, str]:
    """What the parent is told; the log has the rest."""
    traceback.print_exception(error)
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {"failed": what, "kind": "memory" if memory else "other"}


def serve(questions: "SimpleQueue[str]", answers: TextIO) -> NoReturn:
    """Until the process ends with its parent."""
    worker = Worker()
    while True:
        try:
            answer = worker.answer(json.loads(questions.get()))
        except Exception as error:  # noqa: BLE001 - told to the parent, which ends the stage with it
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Answers go to the real standard output; whatever libraries print there goes to the log."""
    questions: SimpleQueue[str] = SimpleQueue()
    child_process.end_with_parent(sys.stdin, questions.put)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(questions, answers)


if __name__ == "__main__":
    main()
