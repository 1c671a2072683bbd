"""In a grading process: whether two LaTeX answers are the same, by math-verify."""

import logging
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time-outs are off: ours hold
CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)


def answer(question: list[str]) -> bool:
    """Whether the second expression is the first. Not symmetric: math-verify reads `x = 5` as 5 only in the second."""
    right, given = question
    return bool(verify(_parsed(right), _parsed(given), timeout_seconds=None))


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> list[Any]:
    return list(parse(f"\\boxed{{{expression}}}", CONFIG, parsing_timeout=None))
