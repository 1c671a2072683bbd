"""What the grading processes wrote down, by steps."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any


class Grades:
    """Follows the files of all grading processes."""

    def __init__(self, folder: Path, rows_per_step: int) -> None:
        self.folder, self.rows_per_step = folder, rows_per_step
        self._read: dict[Path, int] = {}
        self._groups: dict[int, list[dict[str, Any]]] = defaultdict(list)

    def look(self) -> None:
        """Take in what was added since."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                added = file.read()
            end = added.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + end
            for line in added[:end].splitlines():
                row = json.loads(line)
                self._groups[row["index"]].append(row)

    def of_step(self, step: int) -> dict[str, float]:
        """Shares of the step's replies; rows are trained on in the order of the file, so many a step."""
        return self._shares([index for index in self._groups if index // self.rows_per_step + 1 == step])

    def so_far(self) -> dict[str, float]:
        """Shares of all replies since the last call, where groups are drawn anew and no row belongs to a step."""
        return self._shares(list(self._groups))

    @property
    def waiting(self) -> int:
        """Groups that no step was reported for."""
        return len(self._groups)

    @property
    def varied(self) -> bool:
        """Whether any of these groups has replies of different worth."""
        return any(not _equal(group) for group in self._groups.values())

    def _shares(self, indices: list[int]) -> dict[str, float]:
        groups = [self._groups.pop(index) for index in indices]
        rows = [row for group in groups for row in group]
        if not rows:
            return {}
        return {
            "graded": len(rows),
            "correct": sum(row["correct"] for row in rows) / len(rows),
            "format_ok": sum(row["format_ok"] for row in rows) / len(rows),
            "zero_variance": sum(map(_equal, groups)) / len(groups),
        }


def _equal(group: list[dict[str, Any]]) -> bool:
    return len({row["score"] for row in group}) == 1
