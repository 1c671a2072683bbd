r"""A mathematical expression in `\boxed{...}`."""

import re
from collections.abc import Sequence
from fractions import Fraction

from pydantic import Field

from dsrl.core.component import component
from dsrl.graders.base import RIGHT, UNDECIDED, WRONG, Grader
from dsrl.graders.pool import pool
from dsrl.graders.tagged import last_stated
from dsrl.graders.text import comparable

BRACE = re.compile(r"\\(?:boxed|fbox)\s{0,3}{|\\[{}\\]|[{}]")
INNER_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}{([^{}]*)}")
NARROW = re.compile(r"\\!\s?")
STYLE = re.compile(r"\\(?:displaystyle|left|right|[,;!:])(?![A-Za-z])")
FRACTION = re.compile(r"\\[dt]frac(?![A-Za-z])")
PLAIN = re.compile(
    r"(?P<sign>[-+]?)\s?(?:\\frac\s?{\s?(?P<above>\d+)\s?}\s?{\s?(?P<below>\d+)\s?}|(?P<top>\d+)\s?/\s?(?P<bottom>\d+)"
    r"|(?P<digits>\d{1,3}(?:(?:,|\{,\}| )\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+))"
)
"""A space after a comma makes a list: `32, 349` is not 32349."""
PERCENT = re.compile(r"\s?\\?%$")
WORDS = re.compile(r"(?:\\(?:text|textbf|textit|mathrm|mbox){([^{}]*)}|[^\\{}$^_=<>+*/\d]+)")
WORD = re.compile(r"[^\W\d_]{3,}")
PRECISION = Fraction(1, 10**6)
MAX_ANSWER = 2_000
REMEMBERED = 100_000


@component("graders.math")
class Math(Grader):
    r"""LaTeX in the last `\boxed{...}`, compared by math-verify in a process that can be killed.

    Equal spellings, plain numbers and words are settled here. Decimals agree to six places, as in math-verify.
    """

    timeout: float = Field(default=5.0, gt=0)
    """CPU seconds for one comparison; one that needs more is `undecided`, and not right."""

    @property
    def instruction(self) -> str:
        return "Work step by step, then give the final answer as \\boxed{...}."

    def parse(self, reply: str) -> str | None:
        text = last_box(reply)
        return None if text is None else self.read(text)

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else self.read(last_stated(reply))

    def read(self, text: str) -> str | None:
        answer = "" if text.strip() == "..." else canonical(text)
        return answer if 0 < len(answer) <= MAX_ANSWER else None

    def write(self, answer: str) -> str:
        return f"\\boxed{{{answer}}}"

    def same(self, first: str, second: str) -> bool:
        return self.compare(first, second) == RIGHT

    def compare(self, parsed: str, answer: str) -> str:
        return self.compare_many([(parsed, answer)])[0]

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        known = {pair: settled(*pair) for pair in pairs}
        open_pairs = [pair for pair, same in known.items() if same is None]
        verdicts = {pair: RIGHT if same else WRONG for pair, same in known.items() if same is not None}
        verdicts |= _compared(open_pairs, self.timeout)
        return [verdicts[pair] for pair in pairs]


def last_box(reply: str) -> str | None:
    """What stands in the box that closes last; one pass, however many braces are left open."""
    found, opened = None, list[int | None]()
    for match in BRACE.finditer(reply):
        mark = match[0]
        if mark == "}" and opened:
            start = opened.pop()
            found = (start, match.start()) if start is not None else found
        elif mark.endswith("{") and mark != "\\{":
            opened.append(match.end() if len(mark) > 1 else None)
    return reply[slice(*found)] if found else None


def canonical(text: str) -> str:
    """One spelling for what only looks different: spacing, dollars, `\\dfrac`, a box in the box, a full stop."""
    plain = INNER_BOX.sub(r"\1", NARROW.sub("", text[: 4 * MAX_ANSWER]))
    plain = FRACTION.sub(r"\\frac", STYLE.sub(" ", plain))
    return " ".join(plain.split()).strip("$ ").removesuffix(".").strip("$ ")


def settled(first: str, second: str) -> bool | None:
    """Whether they are the same, where that can be said without algebra."""
    if first == second:
        return True
    left, right = number(first), number(second)
    if left is not None and right is not None:
        return _close(left, right) or _percent(first, left, second, right)
    words = _words(first), _words(second)
    return words[0] == words[1] if None not in words else None


def number(text: str) -> Fraction | None:
    """The value of a plain number; of `50\\%`, 50."""
    match = PLAIN.fullmatch(PERCENT.sub("", text))
    if match is None or len(text) > 100:
        return None
    above = match["above"] or match["top"] or re.sub(r"[{}, ]", "", match["digits"])
    below = int(match["below"] or match["bottom"] or 1)
    value = Fraction(above) / below if below else None
    return -value if value is not None and match["sign"] == "-" else value


def _close(first: Fraction, second: Fraction) -> bool:
    return abs(first - second) <= PRECISION * min(Fraction(1), abs(second))


def _percent(first: str, left: Fraction, second: str, right: Fraction) -> bool:
    """One of two is a percentage, and a hundredth of it is the other: `50\\%` is 50, and 0.5, too."""
    hundredth = Fraction(1, 100)
    shares = PERCENT.search(first) is not None, PERCENT.search(second) is not None
    return shares[0] != shares[1] and _close(
        left * hundredth if shares[0] else left, right * hundredth if shares[1] else right
    )


def _words(text: str) -> str | None:
    """The words of an answer that is nothing but text: `listen` and `silent` are no product of the same letters."""
    if WORDS.fullmatch(text) is None or WORD.search(text) is None:
        return None
    return comparable(re.sub(r"\\[a-z]+{|}", "", text))


_known: dict[tuple[str, str, float], str] = {}


def _compared(pairs: Sequence[tuple[str, str]], seconds: float) -> dict[tuple[str, str], str]:
    """The verdicts of math-verify; each pair is asked once in the life of this process."""
    new = [pair for pair in pairs if (*pair, seconds) not in _known]
    if len(_known) + len(new) > REMEMBERED:
        _known.clear()
        new = list(pairs)
    answers = pool("dsrl.graders.math_worker").ask([[answer, parsed] for parsed, answer in new], seconds) if new else []
    for pair, same in zip(new, answers, strict=True):
        _known[(*pair, seconds)] = UNDECIDED if same is None else RIGHT if same else WRONG
    return {pair: _known[(*pair, seconds)] for pair in pairs}
