"""Answers between `<answer>` and `</answer>`, and in fenced blocks."""

import re
import textwrap
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence

from dsrl.graders.base import Grader, first_alternative

TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
STATED = re.compile(r"\banswer\**\s{0,3}(?:is\s{0,3}:|is|:)\s{0,3}", re.IGNORECASE)
FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)(?P<rest>[^\n]*)$", re.MULTILINE)
MAX_TRIES = 20
TRIM = " \t\r\n*_`\"'$."


class Tagged(Grader):
    """A kind whose answer stands alone inside a tag. Subclasses say how that text is read."""

    @property
    @abstractmethod
    def wanted(self) -> str:
        """What the instruction asks for, such as `the final number`."""

    @property
    def placeholder(self) -> str:
        """The text between the tags of the instruction. It must not be an answer itself."""
        return "..."

    @property
    def instruction(self) -> str:
        return f"Think step by step, then give {self.wanted} as <answer>{self.placeholder}</answer>."

    @abstractmethod
    def read(self, text: str) -> str | None: ...

    def marked(self, reply: str) -> Sequence[str]:
        return tagged_texts(reply)

    def parse(self, reply: str) -> str | None:
        texts = tagged_texts(reply)
        return self.read(texts[-1]) if texts and texts[-1].strip() != self.placeholder else None

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else self.read(last_stated(reply))

    def write(self, answer: str) -> str:
        return f"<answer>{first_alternative(answer)}</answer>"


def tagged_texts(reply: str) -> list[str]:
    """The text of each complete tag, from the opening tag nearest to its end; one pass, however many are left open."""
    texts, start = [], None
    for tag in TAG.finditer(reply):
        if not tag.group(1):
            start = tag.end()
        elif start is not None:
            texts.append(reply[start : tag.start()])
            start = None
    return texts


def last_stated(reply: str) -> str:
    """What follows the last `answer is` or `answer:` on its line; without one, the last line."""
    stated = [match.end() for match in STATED.finditer(reply)]
    tail = reply[stated[-1] :] if stated else reply.rstrip().rpartition("\n")[2]
    return tail.partition("\n")[0].strip(TRIM)


def fenced_blocks(reply: str, languages: Sequence[str], is_whole: Callable[[str], bool] | None = None) -> list[str]:
    """The fenced blocks in one of these languages; if there are none, the blocks without a language.

    The indentation of a block in a list is removed, a block on one line is read, and the last block may be unclosed.
    `is_whole` says whether a block may end here: a program whose docstring holds a fence doesn't end at it.
    """
    named, unnamed = list[str](), list[str]()
    fences = list(FENCE.finditer(reply))
    closing = [number for number, fence in enumerate(fences) if not (fence["language"] or fence["rest"].strip())]
    place = 0
    while place < len(fences):
        opened = fences[place]
        language, rest = opened["language"].lower(), opened["rest"].strip()
        wanted = language in languages
        first = bisect_right(closing, place)
        if rest.endswith(opened["fence"]):  # all on one line
            text, place = rest.removesuffix(opened["fence"]), place + 1
        elif first == len(closing):
            text, place = textwrap.dedent(reply[opened.end() :].lstrip("\n")), len(fences)
        else:
            ends = closing[first : first + MAX_TRIES] if wanted and is_whole else closing[first : first + 1]
            bodies = [textwrap.dedent(reply[opened.end() : fences[end].start()].lstrip("\n")) for end in ends]
            whole = next((number for number, body in enumerate(bodies) if is_whole and is_whole(body)), 0)
            text, place = bodies[whole], ends[whole] + 1
        if text.strip() and (wanted or not language):
            (named if wanted else unnamed).append(text.strip())
    return named or unnamed
