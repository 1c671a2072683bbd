"""`dsrl task demos NAME count=10 out=FILE.jsonl`: draw demos from a task's labelled data."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dsrl.cli.tasks.loading import Words, load
from dsrl.core.errors import UserError
from dsrl.data.labelled import draw_worked_examples


def demos(given: Words) -> int:
    """Write demos. With the same seed, fewer demos are the first of more. Existing files are never overwritten."""
    options = dict(given.options)
    count, seed = (_whole(options.pop(name, default), name) for name, default in (("count", ""), ("seed", "0")))
    out = Path(options.pop("out", f"{given.name}_demos.jsonl")).expanduser()
    if out.exists():
        raise UserError("task demos: the file exists already", got=out, next_step="give out=FILE.jsonl")
    task = load(replace(given, options=options))
    if task.gold is None:
        raise UserError(
            f"task {task.name} has no labelled data",
            got="a task without `gold`",
            next_step="give task.gold.path=FILE task.gold.input=... task.gold.output=...",
        )
    found = [item for item in islice(draw_worked_examples(task.gold, task.answer, None, seed), count) if item.solution]
    if len(found) < count:
        raise UserError(
            f"{task.gold.path} has fewer rows with a solution", got=f"count={count}", next_step=f"count={len(found)}"
        )
    try:
        out.write_text("".join(_line(item.input, item.solution) for item in found), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"task demos: can't write {out}", got=error.strerror, next_step="give out=FILE.jsonl"
        ) from error
    print(f"written  {out}: {len(found)} demos of {task.gold.path}")
    print(f"use it   dsrl task={task.name} teacher=... task.demos={out} task.num_demos={count}")
    return 0


def _whole(text: str, name: str) -> int:
    if not text.isdigit() or (name == "count" and text == "0"):
        raise UserError(
            f"task demos: {name} must be a whole number",
            got=text or "nothing",
            next_step="dsrl task demos NAME count=10",
        )
    return int(text)


def _line(question: str, solution: str | None) -> str:
    return json.dumps({"input": question, "output": solution}, ensure_ascii=False) + "\n"
