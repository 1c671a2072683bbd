"""A user's own task, and a teacher for it: several people change one pile of things.

The teacher is a rule-based program that only knows this task. It stands in for a user's model behind an
OpenAI-compatible URL. `python -m tests.support.faultserver serve --answer=tests.e2e.pile:say` serves it.
"""

import json
import random
import re
from collections.abc import Mapping
from typing import Any

from tests.support.faultserver.answers import ModelReply

_NAMES = "Ada Ben Cara Dan Emma Finn Greta Hugo Iris Jack Lena Max Nina Omar Paul Rosa Sam Tina Vera Zoe"
_THINGS = "apples books coins cards eggs keys lemons marbles nails pens plates shells stamps toys"
NAMES, THINGS = tuple(_NAMES.split()), tuple(_THINGS.split())
UP, DOWN = ("finds {} more", "buys {} more", "gets {} more"), ("gives {} away", "loses {} today", "throws {} out")
SENTENCE = re.compile(r"(\w+) (?:finds|buys|gets|gives|loses|throws) (\d+) (more|away|today|out)\.")
OPENING = re.compile(r"(\w+) has (\d+) (\w+)\.")
WRONG = 0.05
"""Share of solutions with a mistake."""


def story(rng: random.Random, steps: int) -> str:
    """A story in which each step is done by another person."""
    people, thing, count = rng.sample(NAMES, steps + 1), rng.choice(THINGS), rng.randint(3, 12)
    told = [f"{people[0]} has {count} {thing}."]
    for name in people[1:]:
        amount = rng.randint(1, 5)
        less = rng.random() < 0.5 and amount <= count
        count += -amount if less else amount
        told.append(f"{name} {rng.choice(DOWN if less else UP).format(amount)}.")
    return " ".join([*told, f"How many {thing} now?"])


def solution(text: str, rng: random.Random | None = None) -> str:
    """One sum per person; with `rng`, sometimes with a mistake."""
    opening = OPENING.search(text)
    assert opening is not None, text
    count, sums = int(opening[2]), []
    for _, amount, way in SENTENCE.findall(text):
        step = int(amount) if way == "more" else -int(amount)
        if rng is not None and rng.random() < WRONG and count >= step:
            step = -step if count - step >= 0 else step
        sums.append(f"{count}{step:+d}={count + step}")
        count += step
    return f"{', '.join(sums)} #### {count}"


def say(body: Mapping[str, Any], _: str, index: int) -> ModelReply:
    """The teacher's reply, derived from the prompt alone."""
    prompt = body["messages"][-1]["content"]
    rng = random.Random(f"{prompt} {(body.get('seed') or 0) + index}")
    if "Name " in prompt and "search keywords" in prompt:
        return ModelReply(json.dumps({"keywords": ["market stall", "school library", "kitchen shelf", "post office"]}))
    if "Describe in general terms" in prompt:
        return ModelReply(json.dumps({"pattern": "A pile of things that several people change one after another."}))
    if "What to do" not in prompt:
        return ModelReply(solution(prompt, rng))
    written = story(rng, _steps(prompt, rng))
    return ModelReply(json.dumps({"input": written, "output": solution(written)}))


def _steps(prompt: str, rng: random.Random) -> int:
    """A random number of steps, or one more or less than the sample to rewrite."""
    direction = re.search(r"# Sample to make (harder|easier)\nInput:\n(.*?)\nAnswer:", prompt, re.DOTALL)
    if direction is None:
        return rng.randint(1, 3)
    there = len(SENTENCE.findall(direction[2]))
    return there + 1 if direction[1] == "harder" else max(1, there - 1)
