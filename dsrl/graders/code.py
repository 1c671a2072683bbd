"""A Python program in a fenced block, judged by tests in a sandboxed process."""

import ast
import re
import warnings
from collections.abc import Sequence

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.graders.base import RIGHT, WRONG, Grader
from dsrl.graders.sandbox import run
from dsrl.graders.tagged import fenced_blocks

TESTS = re.compile(r"^# tests[ \t]*$", re.MULTILINE)
LANGUAGES = ("python", "py", "python3")
DEFINES = re.compile(r"^(?:async\s+def|def|class)\s", re.MULTILINE)
MAX_PROGRAM = 50_000


@component("graders.code")
class Code(Grader):
    """A program is right if the tests of its sample pass. The answer of a sample is a program that passes them (it may
    be left out), a line `# tests`, and Python statements that raise if a test fails.

    Program and tests run in separate processes, so tests reach the program's names but not its interpreter. Two
    programs without tests are equal if their text is: votes on programs need labels from another source.
    """

    version = 2
    timeout: float = Field(default=10.0, gt=0)
    """CPU seconds for a program with all its tests; one that needs more is `undecided`."""
    memory_mb: int = Field(default=1024, ge=64)
    require_isolation: bool = True
    """Refuse to run where files, network and processes can't be closed to the program; false: run it all the same."""

    @property
    def instruction(self) -> str:
        return "Think step by step, then give the whole program in a ```python block."

    def marked(self, reply: str) -> Sequence[str]:
        """The program's block: the last one that defines something, before blocks that only show its use."""
        blocks = fenced_blocks(reply, LANGUAGES, compiles)
        return [block for block in blocks if DEFINES.search(block)][-1:] or blocks[-1:]

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else self.read(reply)

    def read(self, text: str) -> str | None:
        program = text.strip()
        return program if program and len(program) <= MAX_PROGRAM and not TESTS.search(program) else None

    def gold(self, text: str) -> str | None:
        """A solution and its tests, or the tests alone."""
        if not text.strip() or len(text) > MAX_PROGRAM:
            return None
        return text.strip() if TESTS.search(text) else f"# tests\n{text.strip()}"

    def write(self, answer: str) -> str:
        solution = TESTS.split(answer, maxsplit=1)[0].strip()
        if not solution:
            raise UserError(
                "this sample has tests but no program", got=answer[:80], next_step="put a program before `# tests`"
            )
        return f"```python\n{solution}\n```"

    def same(self, first: str, second: str) -> bool:
        return self.compare(first, second) == RIGHT

    def compare(self, parsed: str, answer: str) -> str:
        _solution, *tests = TESTS.split(answer, maxsplit=1)
        if not tests:
            return RIGHT if parsed == answer else WRONG
        return run(parsed, tests[0], self.timeout, self.memory_mb, self.require_isolation)


def compiles(program: str) -> bool:
    """Whether a text is a whole Python program."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
