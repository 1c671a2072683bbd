"""Answers between `<answer>` and `</answer>`, and in fenced blocks."""

import re
from abc import abstractmethod

from dsrl.graders.base import Grader

TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
STATED = re.compile(r"\banswer\s{0,3}(?:is|:)\s{0,3}", re.IGNORECASE)
FENCE = re.compile(r"^[ \t]{0,3}```[ \t]*(\w*)[ \t]*$", re.MULTILINE)
TRIM = " \t\r\n*_`\"'$."


class Tagged(Grader):
    """A kind whose answer stands alone inside a tag. Subclasses say how that text is read."""

    @property
    @abstractmethod
    def wanted(self) -> str:
        """What the instruction asks for, such as `the final number`."""

    @property
    def placeholder(self) -> str:
        """What stands in the tag that the instruction shows; must not itself be an answer."""
        return "..."

    @property
    def instruction(self) -> str:
        return f"Think step by step, then give {self.wanted} as <answer>{self.placeholder}</answer>."

    @abstractmethod
    def read(self, text: str) -> str | None: ...

    def parse(self, reply: str) -> str | None:
        text = last_tag(reply)
        return None if text is None or text.strip() == self.placeholder else self.read(text)

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else self.read(last_stated(reply))

    def write(self, answer: str) -> str:
        return f"<answer>{answer}</answer>"


def last_tag(reply: str) -> str | None:
    """The text of the last complete tag, from the opening next to its end; one pass, however many are left open."""
    found, start = None, None
    for tag in TAG.finditer(reply):
        if not tag.group(1):
            start = tag.end()
        elif start is not None:
            found, start = (start, tag.start()), None
    return reply[slice(*found)] if found else None


def last_stated(reply: str) -> str:
    """What follows the last `answer is` or `answer:` on its line; without one, the last line."""
    stated = [match.end() for match in STATED.finditer(reply)]
    tail = reply[stated[-1] :] if stated else reply.rstrip().rpartition("\n")[2]
    return tail.partition("\n")[0].strip(TRIM)


def last_block(reply: str, languages: tuple[str, ...]) -> str | None:
    """The last closed fenced block in one of these languages, or in none that is named."""
    found, opened = None, None
    for fence in FENCE.finditer(reply):
        if opened is None or fence.group(1):
            opened = fence
        else:
            if opened.group(1).lower() in ("", *languages):
                found = (opened.end(), fence.start())
            opened = None
    return reply[slice(*found)].strip() if found else None
