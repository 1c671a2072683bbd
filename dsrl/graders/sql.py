"""A query in a fenced block, compared by its result."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.graders.base import RIGHT, UNDECIDED, WRONG, Grader
from dsrl.graders.tagged import fenced_blocks
from dsrl.graders.worker_pool import pool

SCRIPT = re.compile(r"^[ \t]{0,20}create\s+table\b.*;", re.IGNORECASE | re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(?:sql)?[ \t]*\n(.*?)^```", re.IGNORECASE | re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^\W{0,5}database:\s*([\w-]+)\s*$", re.IGNORECASE | re.MULTILINE)
START = re.compile(r"^[ \t]{0,20}(?:select|with)\b", re.IGNORECASE | re.MULTILINE)
LANGUAGES = ("sql", "sqlite", "sqlite3", "postgresql", "postgres", "mysql")
MAX_QUERY = 10_000


@component("graders.sql")
class Sql(Grader):
    """Text to SQL. The question holds the tables (`CREATE TABLE ...; INSERT INTO ...;`) or names a database file.

    Both queries run on a read-only SQLite database in a process of its own. Column names don't count, their order
    does; rows count with their repeats, their order only if the right query ends in its own ORDER BY.
    """

    version = 2
    databases: str | None = None
    """Folder of SQLite files, for questions with a line `database: NAME`: NAME.sqlite or NAME/NAME.sqlite in it."""
    timeout: float = Field(default=5.0, gt=0)
    """CPU seconds for both queries; a comparison that needs more is `undecided`."""
    max_rows: int = Field(default=10_000, ge=1)
    """A query that returns more is wrong."""
    tolerance: float = Field(default=1e-6, ge=0)
    """Largest difference between two decimals, as a share of the right one."""

    @property
    def instruction(self) -> str:
        return "Think step by step, then give one SQLite query that answers the question in a ```sql block."

    def for_question(self, question: str) -> Self:
        return self._with_question(question)

    def marked(self, reply: str) -> Sequence[str]:
        return fenced_blocks(reply, LANGUAGES)

    def parse_anywhere(self, reply: str) -> str | None:
        start = max((match.start() for match in START.finditer(reply)), default=len(reply))
        parsed = self.parse(reply)
        return parsed if parsed is not None else self.read(reply[start:].partition(";")[0])

    def read(self, text: str) -> str | None:
        query = text.strip().removesuffix(";").strip()
        return query if 0 < len(query) <= MAX_QUERY else None

    def gold(self, text: str) -> str | None:
        """The query; None if it doesn't run on the tables of the current question."""
        query = super().gold(text)
        return query if query is None or not self.question or self.same(query, query) else None

    def write(self, answer: str) -> str:
        return f"```sql\n{answer}\n```"

    def same(self, first: str, second: str) -> bool:
        return self.compare(first, second) == RIGHT

    def compare(self, parsed: str, answer: str) -> str:
        if not self.question:
            return RIGHT if parsed.split() == answer.split() else WRONG
        question: dict[str, Any] = {
            "script": self._script(),
            "file": self._file(),
            "queries": [answer, parsed],
            "limits": {"max_rows": self.max_rows, "seconds": self.timeout, "tolerance": self.tolerance},
        }
        (reason,) = pool("dsrl.graders.database").ask([question], 2 * self.timeout)
        return str(reason or UNDECIDED)

    def _script(self) -> str:
        blocks = [block for block in BLOCK.findall(self.question) if SCRIPT.search(block)]
        found = SCRIPT.search(self.question)
        return "\n".join(blocks) if blocks else found.group() if found else ""

    def _file(self) -> str | None:
        name = NAME.search(self.question) if self.databases else None
        if name is None or self.databases is None:
            return None
        folder, stem = resource(self.databases), name.group(1)
        places = [folder / f"{stem}.sqlite", folder / stem / f"{stem}.sqlite"]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(
                f"answer.databases has no database {stem}",
                got=str(folder),
                allowed=[str(Path(place).relative_to(folder)) for place in places],
                next_step="put the SQLite file there, or correct the line `database:` of the question",
            )
        return str(found.resolve())
