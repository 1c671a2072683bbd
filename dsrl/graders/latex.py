r"""Mathematical answers as text: one spelling, units, labels, times and brackets. All that needs no algebra."""

import re
from fractions import Fraction
from functools import lru_cache

from dsrl.graders.normalize import LATEX_TEXT, clean, unwrap_latex_text
from dsrl.graders.quantities import SMALL_SPACE, read_quantity
from dsrl.graders.text import comparable

MAX_ANSWER = 2_000
BRACE = re.compile(r"\\(?:boxed|fbox)\s{0,3}{|\\[{}\\]|[{}]")
INNER_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}{([^{}]*)}")
STYLE = re.compile(r"(?<!\\)\\(?:displaystyle|textstyle|left|right|big|Big|bigl|bigr|[,;!: ])(?![A-Za-z])")
SAME_COMMAND = {
    r"\\[dtc]frac(?![A-Za-z])": r"\\frac",
    r"\\varnothing(?![A-Za-z])": r"\\emptyset",
    r"\\leq(?![A-Za-z])": r"\\le",
    r"\\geq(?![A-Za-z])": r"\\ge",
    r"\\neq(?![A-Za-z])": r"\\ne",
    r"\\degree(?![A-Za-z])|\^\s?{\s?\\circ\s?}|{\\circ}": r"^\\circ ",
    r"\\frac\s?(\d)\s?(\d)": r"\\frac{\1}{\2}",
}
COMMANDS = [(re.compile(pattern), latex) for pattern, latex in SAME_COMMAND.items()]
SIGNS = {
    "\u00b0": r"^\circ ",
    "\u00d7": r"\times ",
    "\u00b7": r"\cdot ",
    "\u00f7": r"\div ",
    "\u221e": r"\infty ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u00b1": r"\pm ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u2205": r"\emptyset ",
    "\u2248": r"\approx ",
    "\u2220": r"\angle ",
    "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ",
}
GREEK = {
    "\u03b1": "alpha",
    "\u03b2": "beta",
    "\u03b3": "gamma",
    "\u03b4": "delta",
    "\u03b5": "epsilon",
    "\u03b8": "theta",
    "\u03bb": "lambda",
    "\u03bc": "mu",
    "\u03c0": "pi",
    "\u03c1": "rho",
    "\u03c3": "sigma",
    "\u03c4": "tau",
    "\u03c6": "phi",
    "\u03c8": "psi",
    "\u03c9": "omega",
}
SIGNS |= {letter: f"\\{name} " for letter, name in GREEK.items()}
TYPED = [
    (re.compile("\u221a(?:\\s?{([^{}]*)}|\\s?\\(([^()]*)\\)|\\s?(\\d+(?:\\.\\d+)?|[a-zA-Z]))"), r"\\sqrt{\1\2\3}"),
    (re.compile(r"(?<![\\a-zA-Z])sqrt\s?(?:\(([^()]*)\)|{([^{}]*)}|(\d+))"), r"\\sqrt{\1\2\3}"),
    (re.compile(r"(?<![\\a-zA-Z])exp\s?\(([^()]*)\)"), r"e^{\1}"),
    (re.compile(r"(?<![\\a-zA-Z{])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"(?<![\\a-zA-Z{])(?:infinity|infty|inf|oo)(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"(?<![\w\\.^])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.])"), r"\1 \\times 10^{\2}"),
    (re.compile(r"\+\s?-\s?"), "- "),
    (re.compile(r"\s?\*\s?(?=\\|[a-zA-Z(])"), r" \\cdot "),
]
SUBSCRIPT = re.compile("[\u2080-\u2089]+")
APPROXIMATELY = re.compile(r"(?:\\approx|\\simeq|\\sim|~|=)\s*")
FULL_STOP = re.compile(r"(?<!\.[A-Za-z])\.$")

PERCENT = re.compile(r"\s?\\?%$")
PERCENT_WORD = re.compile(r"(?<=[\d}])\s{0,3}\b(?:percent|per cent|pct\.?)$", re.IGNORECASE)
SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
PRECISION = Fraction(1, 10**6)
WORDS = re.compile(r"[^\\{}$^_=<>+*/\d]+")
WORD = re.compile(r"[^\W\d_]{3,}")
TIME = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?)\s?(?:([ap])\.?\s?m\b\.?)?(?:\s?o'clock)?", re.IGNORECASE)
HOUR = re.compile(r"(\d{1,2})\s?([ap])\.?\s?m\b\.?", re.IGNORECASE)
LABEL = re.compile(r"\(\s?([A-J])\s?\)\s*(.*)|([A-J])(?:[.):]\s*(.*))?", re.DOTALL)
BASE = re.compile(r"([0-9A-Fa-f]+)\s?(?:_\s?{?\s?(\d{1,2}|[a-z]{3,9})\s?}?|\s?\(?base\s{0,2}(\d{1,2}|[a-z]{3,9})\)?)")
BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip
BRACKETS = re.compile(r"(\(|\[|\\\{|\\langle|\|).*?(\)|\]|\\\}|\\rangle|\|)", re.DOTALL)
SYMBOLS = (
    "nm pm mm cm dm km mg kg lb oz ft yd in mi hr min sec ms cL kL mL ml Hz kHz MHz GHz Pa kPa MPa GPa kJ MJ cal kcal "
    "eV W mW kW MW GW Wh kWh mA mV kV MV kN atm mol mmol rad mph kph rpm ppm amu cc"
)
"""Units that are read without a space before them; other short words may be products of variables."""
UNIT_END = re.compile(
    r"(?P<wrapped>(?<![\^_])(?:\\(?:text|textrm|textit|textbf|mathrm|mbox|hbox|rm)\s?{[^{}\d]*[a-zA-Z$%][^{}\d]*}"
    r"(?:\s?\^\s?{?\s?-?[1-9]\s?}?)?\s?[/\\cdot ]{0,6})+)$"
    r"|(?P<percent>\s?\\?%)$"
    r"|(?P<degrees>\s?\^\s?\\circ\s?[CF]?)$"
    rf"|(?<=[\d}})])\s?(?P<symbol>(?:{'|'.join(SYMBOLS.split())})(?:\s?/\s?(?:s|h|hr|min|m|kg|L))?)"
    r"(?P<symbol_power>\s?\^\s?{?[23]}?)?$"
    r"|(?<=\d)\s(?P<letter>[mgshLNJWVKA](?:/(?:s|h|m))?)(?P<letter_power>\s?\^\s?{?[23]}?)?$"
    r"|(?<=[\d})])\s(?P<words>[a-zA-Z]{3,}(?:[ /-][a-zA-Z]{2,}){0,3})(?P<words_power>\s?\^\s?{?[23]}?)?$"
)
CURRENCY = re.compile(r"(-?)\s?(?:\\\$|\\text\s?{\s?\\?\$\s?}|\\pounds|\\euro|[\u20ac\u00a3\u00a5])\s?(?=[\d.(\\-])")
UNIT_NAMES = {
    "cm": "centimeter centimetre",
    "mm": "millimeter millimetre",
    "km": "kilometer kilometre",
    "m": "meter metre",
    "in": "inch inche",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "g": "gram gramme",
    "kg": "kilogram kilo",
    "mg": "milligram",
    "l": "liter litre",
    "ml": "milliliter millilitre",
    "h": "hour hr",
    "min": "minute",
    "s": "second sec",
    "d": "day",
    "$": "dollar buck usd",
    "\u00a2": "cent",
    "\u20ac": "euro eur",
    "\u00a3": "gbp",
    "%": "percent",
    "deg": "degree",
    "rad": "radian",
    "lb": "pound",
    "oz": "ounce",
    "mph": "mi/h",
    "km/h": "kph kmh",
    "": "unit",
}
UNIT_SYMBOL = {name: symbol for symbol, names in UNIT_NAMES.items() for name in names.split()}
SUM_OF_LETTERS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?:\s?[+-]\s?\d*[a-zA-Z])+")
PRODUCT_OF_LETTERS = re.compile(r"(?!([a-z])\1)(?!d[a-z]$)[a-z]\s?[a-z]")


def boxes(reply: str) -> list[str]:
    r"""What each closed `\boxed{...}` holds, in the order in which they close; one pass, however many are left open."""
    found, opened = list[str](), list[int | None]()
    for match in BRACE.finditer(reply):
        mark = match[0]
        if mark == "}" and opened:
            start = opened.pop()
            if start is not None:
                found.append(reply[start : match.start()])
        elif mark.endswith("{") and mark != "\\{":
            opened.append(match.end() if len(mark) > 1 else None)
    return found


@lru_cache(maxsize=16_384)
def canonical(text: str) -> str:
    """One spelling for what only looks different: Unicode signs, spacing, dollars, `\\dfrac`, `sqrt(2)`, `1e-7`."""
    text = text[: 4 * MAX_ANSWER].replace("\u211d", r"\mathbb{R}")
    text = SUBSCRIPT.sub(lambda found: f"_{{{clean(found[0])}}}" if len(found[0]) > 1 else f"_{clean(found[0])}", text)
    text = SMALL_SPACE.sub("", clean(text) if not text.isascii() else text)
    if not text.isascii():
        for sign, latex in SIGNS.items():
            text = text.replace(sign, latex)
    text = INNER_BOX.sub(r"\1", text)
    if "\\" in text:
        text = STYLE.sub(" ", text)
        for command, latex in COMMANDS:
            text = command.sub(latex, text)
    for typed, latex in TYPED:
        text = typed.sub(latex, text)
    text = " ".join(text.split()).strip("$ ")
    text = FULL_STOP.sub("", text).strip("$ ")
    if (lead := APPROXIMATELY.match(text)) is not None:
        text = text[lead.end() :]
    return text.removesuffix("\\")


def settle(reply: str, gold: str) -> bool | tuple[str, str]:
    """Whether two canonical answers are the same, or the two expressions that algebra must compare.

    What both state must agree: units, am or pm, bases, brackets, option letters. What only one states is ignored.
    """
    if reply == gold:
        return True
    left, right = number(reply), number(gold)
    if left is not None and right is not None:
        return _close(left, right) or _percent(reply, left, gold, right)
    flat = _flat(reply), _flat(gold)
    if _squeeze(flat[0]) == _squeeze(flat[1]):
        return True
    for rule in (_times, _labels, _bases):
        if (same := rule(*flat)) is not None:
            return same
    if (brackets := _outer_brackets(reply)) and (others := _outer_brackets(gold)) and brackets != others:
        return False
    (value, unit), (right_value, right_unit) = _split(reply, flat[0]), _split(gold, flat[1])
    if unit is not None or right_unit is not None:
        if unit and right_unit and unit != right_unit:
            return False
        if (value, right_value) != (reply, gold):
            return settle(value, right_value)
    words = _words(flat[0]), _words(flat[1])
    if None not in words:
        return words[0] == words[1]
    if _is_relation_only(gold) and "=" not in reply:
        return False
    return reply, gold


@lru_cache(maxsize=16_384)
def number(text: str) -> Fraction | None:
    """The value of a plain number, by the reader that all kinds share; of `50\\%`, 50."""
    if len(text) > 200 or text[:1] == "=":
        return None
    if SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    quantity = read_quantity(PERCENT.sub("", PERCENT_WORD.sub("", unwrap_latex_text(text)).rstrip()))
    return quantity.value if quantity is not None and quantity.bare else None


def _close(value: Fraction, gold: Fraction) -> bool:
    """Six digits of the gold value, and never coarser than six decimals, so that whole numbers must be equal."""
    return abs(value - gold) <= PRECISION * min(Fraction(1), abs(gold))


def _percent(reply: str, value: Fraction, gold: str, right: Fraction) -> bool:
    """Whether one of two is a percentage whose hundredth is the other: `50\\%` is 50, and 0.5, too."""
    hundredth = Fraction(1, 100)
    shares = [PERCENT.search(text) or PERCENT_WORD.search(unwrap_latex_text(text)) for text in (reply, gold)]
    return (shares[0] is None) != (shares[1] is None) and _close(
        value * hundredth if shares[0] else value, right * hundredth if shares[1] else right
    )


@lru_cache(maxsize=16_384)
def split_unit(text: str) -> tuple[str, str | None]:
    """An answer without its unit, and the unit in one spelling; None without any, empty for one that says nothing."""
    if (money := CURRENCY.match(text)) is not None:
        sign = re.sub(r"[^$\u20ac\u00a3\u00a5]", "", money[0]) or ("\u00a3" if "pounds" in money[0] else "\u20ac")
        return money[1] + text[money.end() :], sign
    found = UNIT_END.search(text)
    if found is None or not found.start():
        return text, None
    value = text[: found.start()].rstrip("~ ")
    unit = unwrap_latex_text(found[0]).strip()
    alone = unit.strip() in ("e", "i", "d", "T")
    if not value or alone or (re.search(r"(?:[=+*/,<>^_({\[-]|\\[a-zA-Z]+)$", value) and not value.endswith(r"\pi")):
        return text, None
    if found["words"] and number(value) is None:
        return text, None
    return value, _unit_key(unit)


def _split(text: str, flat: str) -> tuple[str, str | None]:
    """As `split_unit`, also where number and unit stand in one `\\text{3 apples}`."""
    value, unit = split_unit(text)
    if unit is None and flat != text and number((bare := split_unit(flat))[0]) is not None:
        return bare
    return value, unit


def _unit_key(unit: str) -> str:
    """`cm^2` for `square centimeters`, `h` for `hours`. Short symbols keep their case: mW is not MW."""
    unit = unit.replace("\\cdot", "*").replace("^\\circ", "deg").replace("\\$", "$").replace("\\%", "%")
    unit = re.sub(r"[{}\\~]", "", unit).strip(" .")
    power = re.search(r"\^\s?(-?\d)$", unit)
    exponent = power[1] if power else ""
    unit = unit[: power.start()].strip(" .") if power else unit
    for words, value in ((r"(?:square|sq\.?)", "2"), (r"(?:cubic|cu\.?)", "3")):
        if (area := re.match(rf"{words}\s+", unit, re.IGNORECASE)) is not None:
            unit, exponent = unit[area.end() :], value
        elif (area := re.search(rf"\s+{words}d?$", unit, re.IGNORECASE)) is not None:
            unit, exponent = unit[: area.start()], value
    parts = [_one_unit(part.strip(" .")) for part in re.split(r"\s*/\s*|\s+per\s+|\s+an?\s+", unit)]
    key = "/".join(parts)
    return UNIT_SYMBOL.get(key, key) + (f"^{exponent}" if exponent and key else "")


def _one_unit(word: str) -> str:
    plain = word.casefold()
    singular = plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
    if singular in ("hrs", "secs", "mins", "lbs", "yds"):
        singular = singular[:-1]
    known = UNIT_SYMBOL.get(singular, UNIT_SYMBOL.get(plain))
    if known is not None:
        return known
    return singular if len(word) > 3 else word.lower() if word.lower() in ("l", "ml", "lb", "in", "ft") else word


def _flat(text: str) -> str:
    r"""An answer with what stands in `\text{...}` unwrapped."""
    return " ".join(unwrap_latex_text(text.replace("~", " ")).split())


def _squeeze(flat: str) -> str:
    """Without spaces, except between two digits; words without case."""
    plain = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", flat)
    return plain.casefold() if re.search(r"(?<!\\)\b[a-zA-Z]{3,}|[ap]\.m", flat, re.IGNORECASE) else plain


def _times(reply: str, gold: str) -> bool | None:
    """Times of day must agree in am or pm if both say it."""
    for pattern in (TIME, HOUR):
        left, right = pattern.fullmatch(reply), pattern.fullmatch(gold)
        if left and right:
            halves = {(match[2] or "").lower() for match in (left, right)} - {""}
            return left[1].lstrip("0") == right[1].lstrip("0") and len(halves) < 2
    return None


def _labels(reply: str, gold: str) -> bool | None:
    """An option letter alone, or before its text as `(C) 12`: the letters must agree if both have one."""
    left, right = LABEL.fullmatch(reply), LABEL.fullmatch(gold)
    if left is None or right is None:
        return None
    letters = [match[1] or match[3] for match in (left, right)]
    beside = [(match[2] or match[4] or "").strip() for match in (left, right)]
    if not any(beside) and "(" not in reply + gold:
        return None
    return letters[0] == letters[1] and (not all(beside) or settle(beside[0], beside[1]) is True)


def _bases(reply: str, gold: str) -> bool | None:
    """Digits with a base: the bases must agree if both state one."""
    left, right = BASE.fullmatch(reply), BASE.fullmatch(gold)
    if left is None and right is None:
        return None
    digits = [match[1] if match else text.strip() for match, text in ((left, reply), (right, gold))]
    bases = {BASES.get(base, base) for match in (left, right) if match and (base := match[2] or match[3])}
    if not all(re.fullmatch(r"[0-9A-Fa-f]+", one) for one in digits):
        return None
    return digits[0].lstrip("0").casefold() == digits[1].lstrip("0").casefold() and len(bases) == 1


def _outer_brackets(text: str) -> str:
    """The brackets around a whole answer of several parts; empty without any, or if they close before its end."""
    found = BRACKETS.fullmatch(text)
    if found is None or "," not in text or found[1] == "|":
        return ""
    depth = 0
    for place, sign in enumerate(text[:-1]):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and place >= len(found[1]) - 1 and place < len(text) - len(found[2]):
            return ""
    return found[1] + found[2]


def _words(flat: str) -> str | None:
    """The words of an answer that is nothing but text: `listen` and `silent` are no product of the same letters."""
    if WORDS.fullmatch(flat) is None or WORD.search(flat) is None:
        return None
    return comparable(flat, articles=True)


def _is_relation_only(gold: str) -> bool:
    """Whether a gold answer is an equation between several letters: its right side alone doesn't answer it."""
    left, equals, _right = gold.partition("=")
    if not equals or LATEX_TEXT.search(left):
        return False
    left = left.strip()
    return bool(SUM_OF_LETTERS.search(left) or PRODUCT_OF_LETTERS.fullmatch(left))


def same_settled(reply: str, gold: str) -> bool:
    """Whether two canonical answers are the same as far as that can be said without algebra."""
    return settle(reply, gold) is True
