"""A number after a marker, such as GSM8K's `#### 72`."""

import re
from fractions import Fraction

from pydantic import Field

from dsrl.grade.base import Grader
from dsrl.part import part

DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"(?<![\w.])(?<!\d,)([-+\u2212]?)\s?[$\u20ac\u00a3]?\s?((?:{DIGITS})(?:\s?/\s?\d+)?)(?!\d|[.,]\d|[eE][+-]?\d)"
)
WRAPPING = re.compile(r"\\boxed\s*{([^{}]*)}|\\\$|[*$]+(?=\S)|(?<=\S)[*$]+|\\[,;! ]")
MAX_DIGITS = 60


@part
class Number(Grader):
    """Reads integers, decimals, fractions, thousands separators, currency signs; compares values, not spellings."""

    marker: str = Field(default="####", min_length=1)
    """What stands before the final number."""
    tolerance: float = Field(default=0.0, ge=0)
    """Largest absolute difference that still counts as the same."""

    @property
    def instruction(self) -> str:
        return f'Work step by step, then end with "{self.marker} " and the final number.'

    def parse(self, reply: str) -> str | None:
        _head, marker, tail = reply.rpartition(self.marker)
        if not marker:
            return None
        lines = tail.strip().splitlines()
        found = _numbers(lines[0]) if lines else []
        return found[0] if len(found) == 1 else None

    def parse_anywhere(self, reply: str) -> str | None:
        found = _numbers(reply)
        return found[-1] if found else None

    def same(self, first: str, second: str) -> bool:
        left, right = _value(first), _value(second)
        if left is None or right is None:
            return first == second
        return abs(left - right) <= Fraction(self.tolerance)


def _numbers(text: str) -> list[str]:
    """Every number of a text in canonical spelling: `1,200.50` -> `1200.5`, `6/8` -> `0.75`, `2/6` -> `1/3`."""
    plain = WRAPPING.sub(lambda match: f" {match.group(1) or ''}", text)
    values = (_value(sign + digits) for sign, digits in NUMBER.findall(plain))
    return [_spelling(value) for value in values if value is not None]


def _value(text: str) -> Fraction | None:
    compact = re.sub(r"[\s,]", "", text).replace("\u2212", "-")
    if len(compact) > MAX_DIGITS:
        return None
    try:
        return Fraction(compact)
    except (ValueError, ZeroDivisionError):
        return None


def _spelling(value: Fraction) -> str:
    """Whole and finite decimal numbers as such, others as a fraction in lowest terms."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value) * 10**MAX_DIGITS // 1:0{MAX_DIGITS + 1}d}"
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-MAX_DIGITS]}.{digits[-MAX_DIGITS:]}".rstrip("0").rstrip(".")
