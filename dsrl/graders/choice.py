"""One option letter inside an answer tag."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Self

from pydantic import Field, field_validator

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.graders.latex import boxes
from dsrl.graders.normalize import clean, strip_markup
from dsrl.graders.tagged import TRIM, Tagged

OPTION = re.compile(r"(?:^|(?<=\s))\(?([A-Z])([).:])\s+", re.MULTILINE)
OPTION_LINE = re.compile(r"^[ \t]{0,8}\(?([A-Z])([).:])[ \t]+", re.MULTILINE)
MARKS = ":)."
MAX_TEXT = 10_000
EDGE = TRIM + ",;:!?"

NOUN = r"(?:answer|option|choice|letter)"
CERTAINLY = r"(?:most likely|likely|probably|therefore|thus|clearly|definitely|indeed|simply|option|choice|letter|the)"
VERB = r"(?:is|are|was|would be|must be|should be|has to be|will be|seems to be|=)"
LEAD = re.compile(
    rf"(?:(?:so|thus|therefore|hence|finally|overall),?\s{{1,3}})?(?:(?:the|my|our)\s{{1,3}})?"
    rf"(?:(?:correct|right|best|final|only|single|most \w{{1,20}})\s{{1,3}}){{0,3}}{NOUN}(?:\s{{1,3}}{NOUN})?"
    rf"(?:\s{{0,3}}{VERB})?\s{{0,3}}:?\s{{0,3}}(?:{CERTAINLY}\s{{1,3}}){{0,3}}",
    re.IGNORECASE,
)
LETTER = re.compile(
    r"(?P<open>[(\[{<\"']{0,2})\s?(?P<letter>[A-Z])(?![\w'])\s?(?P<close>[)\]}>\"']{0,2})", re.IGNORECASE
)
AFTER = re.compile(r"[ \t]{0,3}(?P<mark>[).:,;!\u3001/-]{0,3})(?P<space>\s{0,9})(?P<rest>.*)", re.DOTALL)
REASON = re.compile(
    r"\b(?:because|since|as|for|not|rather|instead|whereas|while|given|due)\b|\bis (?:the )?(?:most likely |only )?"
    rf"(?:correct|right|true|best)(?: {NOUN})?\b|\bis the {NOUN}\b",
    re.IGNORECASE,
)
"""Where the reason for a letter begins: other letters may be named from there on."""
SECOND = re.compile(r"(?<![\w'])[(\[]?([A-Z])[)\]]?(?![\w'])")
STATED = re.compile(
    rf"\b(?i:answer(?:\s{{1,3}}{NOUN})?(?:\s{{0,3}}{VERB})?\s{{0,3}}:?|{NOUN}\s{{0,3}}(?:{VERB}\s{{0,3}}:?|:)"
    rf"|(?:I|we)\s(?:would\s)?(?:choose|select|pick))\s{{0,3}}(?i:{CERTAINLY}\s{{1,3}}){{0,3}}"
    r"(?:[(\[\"']{0,2}\b(?P<letter>[A-Z])\b(?!['-]?\w)[)\]\"']{0,2}(?P<second>\s{0,3}(?:,|/|\b(?:or|and)\b)\s{0,3}"
    r"(?i:(?:option|choice)\s)?[(\[\"']?[A-Z]\b(?!'))?|\(?\b(?P<small>[a-z])\b\)?(?=\W*$))"
    r"(?!\s(?:is|are)\s(?:not|wrong|incorrect|false)\b)",
    re.MULTILINE,
)
"""A stated letter; `second` if another one is named in the same breath."""
VERDICT = re.compile(
    r"(?<![\w'])[(\[\"']?(?P<letter>[A-Z])[)\]\"']?\s{1,3}(?i:is|must be|would be)\s{1,3}"
    r"(?i:(?:the|most likely|likely|probably|therefore|clearly|only|best)\s{1,3}){0,3}"
    r"(?i:correct|right|answer|best|true)\b"
)
SENTENCE = re.compile(r"\s+(?!(?:because|since|as|and|or|is|for|which|with)\b)[a-z]")
"""A capital `A` before a small word is an article, unless a reason follows."""
TEXT_STATED = re.compile(rf"\b{NOUN}\s{{0,3}}(?:is\s{{0,3}}:|is|:)\s{{0,3}}([^\n]{{1,500}})", re.IGNORECASE)


@component("graders.choice")
class Choice(Tagged):
    """Multiple choice: `<answer>B</answer>`, also `(B)`, `B.`, `B: text` or the option's own text inside the tag."""

    version = 3
    options: str = Field(default="ABCD", pattern=r"^[A-Z]{2,26}$")
    """The letters to choose from."""

    @field_validator("options")
    @classmethod
    def _check_unique(cls, options: str) -> str:
        if twice := sorted({letter for letter in options if options.count(letter) > 1}):
            raise UserError(
                f"answer.options: letter {', '.join(twice)} is given more than once",
                got=options,
                next_step="give each letter once, such as answer.options=ABCD",
            )
        return options

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self.options)

    @property
    def wanted(self) -> str:
        letters = ", ".join(self.options[:-1]) + f" or {self.options[-1]}"
        return f"the letter of the right option ({letters})"

    @property
    def placeholder(self) -> str:
        return "letter"

    def for_question(self, question: str) -> Self:
        return self._with_question(question)

    def allowed(self) -> Collection[str]:
        return option_texts(self.question, self.options)

    def same(self, first: str, second: str) -> bool:
        """Equal letters, or letters of options with equal texts."""
        if first == second:
            return True
        texts = option_texts(self.question, self.options)
        return first in texts and texts[first] == texts.get(second)

    def read(self, text: str) -> str | None:
        """The letter of a text that names one option: by its letter, by its own text, or by both."""
        if len(text) > MAX_TEXT:
            return None
        if len(text) == 1 and text in self.options:
            return text
        texts = option_texts(self.question, self.options)
        bare = strip_markup(clean(text)).strip(TRIM + ",;")
        if (letter := self._by_text(bare, texts)) is not None:
            return letter
        lead = LEAD.match(bare)
        for start in (lead.end() if lead else 0, 0):
            match = LETTER.match(bare, start)
            if match is not None and (named := match["letter"].upper()) in self.options:
                return named if self._names_one(named, match, bare, texts) else None
        stated = [option for option in texts.values() if bare.casefold().endswith(option.casefold())]
        longest = max(stated, key=len, default="")
        return self._by_text(longest, texts) if longest and LEAD.fullmatch(bare[: -len(longest)]) else None

    def parse_anywhere(self, reply: str) -> str | None:
        if (parsed := self.parse(reply)) is not None:
            return parsed
        plain = strip_markup(clean(reply[-4 * MAX_TEXT :]))
        texts = option_texts(self.question, self.options)
        stated = [(match.start(), self._by_text(match[1].strip(EDGE), texts)) for match in TEXT_STATED.finditer(plain)]
        found: list[tuple[int, str | None]] = [(place, letter) for place, letter in stated if letter]
        for match in STATED.finditer(plain):
            letter = (match["letter"] or match["small"]).upper()
            if letter in self.options and not (match["letter"] and SENTENCE.match(plain, match.end("letter"))):
                found.append((match.start(), None if match["second"] else letter))
        found += [
            (match.start(), match["letter"]) for match in VERDICT.finditer(plain) if match["letter"] in self.options
        ]
        if found:  # of several statements the last one counts, also if it names two letters
            return max(found, key=lambda statement: statement[0])[1]
        boxed = boxes(reply)
        if boxed and (letter := self.read(boxed[-1])) is not None:
            return letter
        bare = plain.strip(EDGE + "()[]")
        return bare.upper() if len(bare) == 1 and bare.upper() in self.options else self._by_text(plain, texts)

    def _names_one(self, letter: str, match: re.Match[str], text: str, texts: dict[str, str]) -> bool:
        """Whether the text beside a letter names no other option, nor goes on after an article (`A patient`)."""
        after = AFTER.match(text, match.end())
        rest = after["rest"] if after else ""
        mark = bool(after and after["mark"]) or bool(match["close"])
        if not rest.strip(EDGE + "()[]\u3001"):
            return True
        own = texts.get(letter)
        plain = _plain(rest.strip("()[] "))
        if own is not None and plain.casefold() == own.casefold():
            return True
        if any(plain.casefold() == other.casefold() for name, other in texts.items() if name != letter):
            return False
        if any(found.group(1) in self.options for found in OPTION.finditer(rest)):
            return False
        first_line = "" if after and "\n" in after["space"] else rest.partition("\n")[0]
        claim = first_line[: reason.start()] if (reason := REASON.search(first_line)) else first_line
        folded = " ".join(claim.casefold().split())
        if own is not None and (whole := re.compile(rf"(?<!\w){re.escape(own)}(?!\w)", re.IGNORECASE)).search(folded):
            folded, mark = whole.sub(" ", folded), True
            claim = whole.sub(" ", claim)
        if any(len(other) > 2 and other.casefold() in folded for name, other in texts.items() if name != letter):
            return False
        seconds = {second for second in SECOND.findall(claim) if second in self.options and second != letter}
        if seconds:
            return False
        return mark or not claim.strip() or bool(after and "\n" in after["space"])

    def _by_text(self, text: str, texts: dict[str, str]) -> str | None:
        """The letter of the option that reads like this; where several do, the first of equal ones, else none."""
        plain = _plain(text)
        if len(plain) == 1 and plain.upper() in self.options:
            return None
        for form in (str, str.casefold):
            named = [letter for letter, option in texts.items() if form(option) == form(plain)]
            if named:
                return named[0] if len({texts[letter] for letter in named}) == 1 else None
        return None


@lru_cache(maxsize=4096)
def option_texts(question: str, letters: str) -> dict[str, str]:
    """Letter -> text of the options that a question lists in order (`A: ...`, `(A) ...`), up to a blank line."""
    runs = [in_order(pattern, mark, question, letters) for pattern in (OPTION_LINE, OPTION) for mark in MARKS]
    best = max(runs, key=len)
    ends = [match.start() for match in best[1:]] + [len(question)]
    pieces = {match.group(1): question[match.end() : end] for match, end in zip(best, ends, strict=False)}
    texts = {letter: _plain(strip_markup(clean(piece.partition("\n\n")[0]))) for letter, piece in pieces.items()}
    return {letter: text for letter, text in texts.items() if text}


def in_order(pattern: re.Pattern[str], mark: str, question: str, letters: str, start: int = 0) -> list[re.Match[str]]:
    """The longest run of options with this mark from the first letter on; the last one of equally long runs."""
    best: list[re.Match[str]] = []
    found: list[re.Match[str]] = []
    for match in pattern.finditer(question, start):
        if match[2] != mark:
            continue
        if match[1] == letters[0]:
            found = [match]
        elif found and match[1] == letters[len(found) :][:1]:
            found = [*found, match]
        best = found if len(found) >= max(2, len(best)) else best
    return best


def _plain(text: str) -> str:
    """An option's text with single spaces and without the punctuation around it; case stays: Tt is not TT."""
    return " ".join(text.split()).strip(TRIM + ",;")
