"""In a grading process: whether two LaTeX expressions are equal, by math-verify with a relative tolerance."""

import logging
from functools import lru_cache
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, grader, parse, verify
from sympy import Basic, Float, MatrixBase

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time-outs are off: ours hold
CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
TOLERANCE = Float("1e-6")
DIGITS = 40
EXACT = Float("1e-30", DIGITS)

_numeric_eq = grader.sympy_numeric_eq


def answer(question: list[str]) -> bool:
    """Whether the second expression is the first. Not symmetric: math-verify reads `x = 5` as 5 only in the second."""
    gold, reply = question
    return bool(verify(_parsed(gold), _parsed(reply), timeout_seconds=None))


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> list[Any]:
    return list(parse(f"\\boxed{{{expression}}}", CONFIG, parsing_timeout=None))


def relative_numeric_eq(gold: Any, reply: Any, float_rounding: int, numeric_precision: int) -> bool:
    """Whether two expressions agree within 1e-6 of the gold value, or exactly if neither holds a decimal.

    Takes the place of math-verify's comparison, which rounds to six decimals and drops differences below 1e-15: to it,
    all masses of particles are equal. It is called for the parts of tuples, sets and matrices, too.
    """
    if isinstance(gold, MatrixBase) or isinstance(reply, MatrixBase):
        return bool(_numeric_eq(gold, reply, float_rounding, numeric_precision))
    if not _numeric_eq(gold, reply, float_rounding, numeric_precision):
        return False
    gold, reply = (grader.get_pct_val(value, value) for value in (gold, reply))
    if gold == reply:
        return True
    if not (isinstance(gold, Basic) and isinstance(reply, Basic)):
        return False
    decimal = gold.has(Float) or reply.has(Float)
    if gold.free_symbols or reply.free_symbols:
        return _same_terms(gold, reply) if decimal else bool(sympy.simplify(gold - reply) == 0)
    return _close(gold, reply, decimal)


def _close(gold: Basic, reply: Basic, decimal: bool) -> bool:
    right, value = (sympy.N(number, DIGITS, maxn=200) for number in (gold, reply))
    difference = abs(sympy.N(gold - reply, DIGITS, maxn=200) if not decimal else right - value)
    if not (right.is_finite and value.is_finite):
        return False
    return bool(difference <= (TOLERANCE if decimal else EXACT) * abs(right))


def _same_terms(gold: Basic, reply: Basic) -> bool:
    """Term by term, so that a small coefficient isn't lost beside a large one."""
    left, right = (sympy.expand(value).as_coefficients_dict() for value in (gold, reply))
    return all(_close(left.get(term, sympy.S.Zero), right.get(term, sympy.S.Zero), True) for term in {*left, *right})


grader.sympy_numeric_eq = relative_numeric_eq
