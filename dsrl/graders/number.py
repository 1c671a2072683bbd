"""A number after a marker, such as GSM8K's `#### 72`."""

import re
from collections import deque
from fractions import Fraction

from pydantic import Field

from dsrl.core.component import Many, component
from dsrl.graders.base import Grader

MONEY = "[$\u20ac\u00a3\u00a5]"
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"(?<![\w.^])(?<!\d,)(?P<before>{MONEY}?)\s?(?P<sign>[-+]?)\s?(?P<after>{MONEY}?)\s?"
    rf"(?:(?P<whole>\d+)[ -](?P<part>\d+)/(?P<parts>\d+)|(?P<digits>{DIGITS})(?:\s?/\s?(?P<divisor>\d+))?)"
    r"(?:[eE](?P<exponent>[+-]?\d+)(?!\w))?(?!\d|[.,^]\d|[eE][+-]?\d)"
    r"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion)\b|(?P<glued>[kKMB]\b))?"
    rf"(?P<unit>\s{{0,3}}(?:[^\W\d_]+|[%\u00b0]|{MONEY})?)"
)
LATEX = re.compile(r"\\[dt]?frac\s?{\s?(\d{1,60})\s?}\s?{\s?(\d{1,60})\s?}")
POWER = re.compile(r"\s?(?:\\times|\\cdot|[x*\u00d7\u00b7])\s?10\s?\^\s?[{(]?\s?([-+\u2212]?\d{1,6})\s?[)}]?")
POWER_ALONE = re.compile(r"(?<![\w.^])10\s?\^\s?[{(]?\s?([-+\u2212]?\d{1,6})\s?[)}]?")
WRAPPING = re.compile(r"\\(?:boxed|text|mathrm)\s?{([^{}]*)}|\*+(?=\S)|(?<=\S)\*+|\\[,;! ]|\\(?=[%$])")
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
GLUED = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,59}")
"""Canonical as it stands: most answers are."""
MAX_DIGITS = 60


@component("graders.number")
class Number(Grader):
    """Reads integers, decimals, fractions, mixed numbers, powers of ten, separators, currency signs, units and
    `million`; compares values, not spellings."""

    version = 2
    marker: str = Field(default="####", min_length=1)
    """What stands before the final number."""
    tolerance: float = Field(default=0.0, ge=0)
    """Largest absolute difference that still counts as the same."""
    relative_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Largest difference as a share of the right answer that still counts as the same."""
    units: Many[str] = ()
    """Spellings of the unit that is asked for, the shown one first: a number in another unit is no answer. Empty: a
    unit is read over, also `%`."""

    @property
    def instruction(self) -> str:
        unit = f" in {self.units[0]}" if self.units else ""
        return f'Work step by step, then end with "{self.marker} " and the final number{unit}.'

    def parse(self, reply: str) -> str | None:
        _head, marker, tail = reply.rpartition(self.marker)
        line = tail.strip().partition("\n")[0]
        return self.read(line) if marker else None

    def read(self, text: str) -> str | None:
        if INTEGER.fullmatch(text):
            return text
        found = deque(NUMBER.finditer(_plain(text)), maxlen=2)
        return self._canonical(found[0]) if len(found) == 1 else None

    def parse_anywhere(self, reply: str) -> str | None:
        found = deque(NUMBER.finditer(_plain(reply)), maxlen=16)
        readable = (self._canonical(match) for match in reversed(found))
        return next((answer for answer in readable if answer is not None), None)

    def write(self, answer: str) -> str:
        return f"{self.marker} {answer}"

    def same(self, first: str, second: str) -> bool:
        if first == second:
            return True
        left, right = _fraction(first), _fraction(second)
        if left is None or right is None:
            return False
        allowed = max(Fraction(self.tolerance), Fraction(self.relative_tolerance) * abs(right))
        return abs(left - right) <= allowed

    def _canonical(self, match: re.Match[str]) -> str | None:
        value = _value(match)
        return None if value is None or not self._wanted(_unit(match)) else _spelling(value)

    def _wanted(self, unit: str) -> bool:
        return not self.units or not unit or unit.lower() in {known.strip().lower() for known in self.units}


def _plain(text: str) -> str:
    """Without LaTeX and Markdown around numbers; powers of ten as exponents."""
    text = text.replace("{,}", ",").replace("\\!", "").replace("\u2212", "-")
    text = LATEX.sub(r" \1/\2", text)
    text = POWER_ALONE.sub(r"1e\1", POWER.sub(r"e\1", text))
    return WRAPPING.sub(lambda match: "" if match[0] == "\\" else f" {match[1] or ''}", text)


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > MAX_DIGITS + 40:
        return None
    value = _mixed(match) if match["whole"] else _fraction(f"{match['digits']}/{match['divisor'] or 1}")
    exponent = int(match["exponent"] or 0)
    money = match["before"] or match["after"]
    if value is None or abs(exponent) > MAX_DIGITS or (match["glued"] in ("M", "B") and not money):
        return None
    scale = SCALES.get(match["scale"] or "", 1) * GLUED.get(match["glued"] or "", 1)
    return (-value if match["sign"] == "-" else value) * scale * Fraction(10) ** exponent


def _unit(match: re.Match[str]) -> str:
    """The word or sign after the number, or the currency before it; not the dollars around a formula."""
    money = match["before"] or match["after"]
    unit: str = match["unit"].strip()
    return money if not unit else "" if unit == money == "$" else unit


def _mixed(match: re.Match[str]) -> Fraction | None:
    """`2 1/2`; None where the fraction is not a proper one."""
    share = _fraction(f"{match['part']}/{match['parts']}")
    return None if share is None or not 0 < share < 1 else int(match["whole"]) + share


def _fraction(text: str) -> Fraction | None:
    """The value of a decimal, a fraction, or a decimal over a whole number."""
    compact = re.sub(r"[\s,]", "", text).replace("\u2212", "-")
    above, _, below = compact.partition("/")
    if len(compact) > MAX_DIGITS + 40:
        return None
    try:
        return Fraction(above) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def _spelling(value: Fraction) -> str | None:
    """Whole and finite decimal numbers as such, others as a fraction in lowest terms."""
    if max(abs(value.numerator), value.denominator) > 10**MAX_DIGITS:
        return None
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
