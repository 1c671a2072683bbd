"""The one reader of numbers for all answer kinds. What surrounds a number must be understood, or there is none."""

import re
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from dsrl.graders.normalize import clean, unwrap_latex_text

MONEY = r"(?:(?:US|CA|AU|NZ|HK|S|A|C)?\$|[\u20ac\u00a3\u00a5\u20b9]|\b(?:USD|EUR|GBP|INR|Rs\.?)\s)"
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"(?<![\w.^])(?<!\d,)(?P<before>{MONEY}?)\s?(?P<sign>[-+]?)\s{{0,2}}(?P<after>{MONEY}?)\s?"
    rf"(?:(?P<whole>\d+)[ -](?P<part>\d+)/(?P<parts>\d+)|(?P<digits>{DIGITS})(?:\s?/\s?(?P<divisor>\d+))?)"
    r"(?:[eE](?P<exponent>[+-]?\d+)(?!\w))?(?!\d|[.,^]\d|[eE][+-]?\d)"
    r"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion)\b|(?P<glued>[kKMB]\b))?"
    r"(?P<unit>\s{0,3}(?:[^\W\d_]+|[%\u00b0\u20ac\u00a3\u00a5\u20b9\u00a2]|\$)?)"
)
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
GLUED = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,59}")
"""Canonical as it stands: most answers are."""
MAX_DIGITS = 60
MAX_TEXT = 2_000

SMALL_SPACE = re.compile(r"(?<!\\)\\[,;: ](?=\d{3}(?!\d))|\\!\s?|\{,\}(?=\d{3})")
FRACTION = re.compile(r"\\[dtc]?frac\s?(?:{\s?(\d{1,60})\s?}|(\d))\s?(?:{\s?(\d{1,60})\s?}|(\d))")
POWER = re.compile(r"\s?(?:\\times|\\cdot|[x*\u00d7\u00b7])\s?10\s?\^\s?[{(]?\s?([-+]?\d{1,6})\s?[)}]?")
POWER_ALONE = re.compile(r"(?<![\w.^])10\s?\^\s?[{(]?\s?([-+]?\d{1,6})\s?[)}]?")
MARKUP = re.compile(
    r"\*+(?=\S)|(?<=\S)\*+|\\[,;!: ]|\\(?=[%$])|\\[()\[\]]|\\(?:left|right)(?![a-z])|~|<\|\w{1,30}\|>|</s>"
)
DEGREES = re.compile(r"\s?\^\s?(?:{\s?\\circ\s?}|\\circ(?![a-z]))|\\degree(?![a-z])")
SIGN_WORD = re.compile(r"\b(minus|negative|plus|positive)\s{1,3}(?=[$\u20ac\u00a3\u00a5(]?\s?[\d.])", re.IGNORECASE)
BRACKETED = re.compile(r"([-+])\s?\(\s?([\d.,/ ]{1,100})\)")
SIMPLE = re.compile(r"[\w.,%$/ \t+-]*", re.ASCII)

LEAD = re.compile(
    r"(?:.*(?:(?<![<>!\u2260:])[=:\u2248]|\b(?:is|are|was|were|be|equals?|equal to|about|approximately|approx\.?|"
    r"around|roughly|nearly|almost|exactly|only|just|totals?|total of|sum of|answer|result|solution)))?\s*",
    re.IGNORECASE,
)
"""What may stand before the number. Anything else may turn, bound or name it: `under 5`, `Vendor 2`, `(5)`."""
DENIAL = re.compile(r"\b(?:not|never|no|cannot|neither|nor)\b|n't\b", re.IGNORECASE)
TAIL_OPERATOR = re.compile(r"\s{0,3}(?:[\\^=\u221a\u03c0!*+<>\u00b1\u00d7\u00f7\u00b7_|]|-\s?\w|/\s?[^a-zA-Z\s])")
TAIL_WORDS = re.compile(
    r"\b(?:or|nor|not|half|below zero|and an? (?:half|third|quarter|fourth|fifth|eighth|tenth))\b", re.IGNORECASE
)
VARIABLES = frozenset({"x", "y", "z", "n", "i", "e", "pi", "\u03c0"})
STRAY_DIGIT = re.compile(r"(?<![a-zA-Z])\d|(?<=[eE])\d")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and the unit beside it."""

    value: Fraction
    unit: str
    """The word or sign after the number, or the currency before it; empty without any."""
    bare: bool
    """Nothing but the number, a scale such as `million`, and its sign stands there."""


@lru_cache(maxsize=16_384)
def read_quantity(text: str) -> Quantity | None:
    """The only number of a text. None if there is none, a second one, or something around it that is not understood."""
    if len(text) > MAX_TEXT:
        return None
    text = prepare(text).strip(" \t\r\n\"'").rstrip(".;,")
    found = deque(NUMBER.finditer(text), maxlen=2)
    if len(found) != 1:
        return None
    match = found[0]
    before, after = text[: match.start()], text[match.end() :]
    if STRAY_DIGIT.search(before + after) or not LEAD.fullmatch(before) or DENIAL.search(before):
        return None
    unit = match["unit"].strip()
    tail = text[match.start("unit") :]
    if unit in VARIABLES or TAIL_OPERATOR.match(tail if not unit else after) or TAIL_WORDS.search(tail):
        return None
    value = value_of(match)
    if value is None:
        return None
    return Quantity(value, unit_of(match), bare=not before.strip() and not after.strip() and not unit_of(match))


def find_numbers(text: str, most: int) -> list[re.Match[str]]:
    """The last `most` numbers of a text, whatever stands around them."""
    return list(deque(NUMBER.finditer(prepare(text)), maxlen=most))


def prepare(text: str) -> str:
    """Text with LaTeX and Markdown around numbers removed, minus words as signs and powers of ten as exponents."""
    if SIMPLE.fullmatch(text) and not SIGN_WORD.search(text):
        return text
    text = SMALL_SPACE.sub("", clean(text))
    if "\\" in text:
        text = FRACTION.sub(lambda found: f" {found[1] or found[2]}/{found[3] or found[4]} ", text)
        text = DEGREES.sub("\u00b0", unwrap_latex_text(text))
    text = POWER_ALONE.sub(r"1e\1", POWER.sub(r"e\1", text))
    text = MARKUP.sub(lambda found: "" if found[0] == "\\" else " ", text)
    text = SIGN_WORD.sub(lambda found: "-" if found[1].lower() in ("minus", "negative") else "+", text)
    return BRACKETED.sub(r"\1\2", text)


def value_of(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `NUMBER`; None if it divides by zero, has no proper fraction, or is too long."""
    if len(match[0]) > MAX_DIGITS + 40:
        return None
    if match["whole"]:
        part = fraction(f"{match['part']}/{match['parts']}")
        value = None if part is None or not 0 < part < 1 else int(match["whole"]) + part
    else:
        value = fraction(f"{match['digits']}/{match['divisor'] or 1}")
    exponent = int(match["exponent"] or 0)
    money = match["before"] or match["after"]
    unread_scale = match["unit"].strip() in ("M", "B", "K", "k", "G", "T") and not match["scale"]
    if value is None or abs(exponent) > MAX_DIGITS or (match["glued"] in ("M", "B") and not money):
        return None
    if unread_scale and not money:  # `1.5 M` may be millions, metres or molar
        return None
    factor = SCALES.get(match["scale"] or "", 1) * GLUED.get(match["glued"] or "", 1)
    factor *= GLUED.get(match["unit"].strip(), 1) if unread_scale else 1
    return (-value if match["sign"] == "-" else value) * factor * Fraction(10) ** exponent


def unit_of(match: re.Match[str]) -> str:
    """The word or sign after the number, or the currency before it; not the dollars around a formula."""
    money = (match["before"] or match["after"]).strip()
    unit: str = match["unit"].strip()
    return money if not unit else "" if unit == money == "$" else unit


def fraction(text: str) -> Fraction | None:
    """The value of a decimal, a fraction, or a decimal over a whole number."""
    compact = re.sub(r"[\s,]", "", text).replace("\u2212", "-")
    above, _, below = compact.partition("/")
    if len(compact) > MAX_DIGITS + 40:
        return None
    try:
        return Fraction(above) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def spell(value: Fraction) -> str | None:
    """Whole and finite decimal numbers as such, others as a fraction in lowest terms; None beyond 60 digits."""
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
