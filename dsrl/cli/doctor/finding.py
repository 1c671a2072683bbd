"""One line of what `dsrl doctor` says."""

from dataclasses import dataclass
from typing import Literal

Mark = Literal["ok", "-", "!!"]


@dataclass(frozen=True)
class Finding:
    """One line of the answer. `!!`: something that was asked for won't work. `-`: absent, and not needed for it."""

    mark: Mark
    name: str
    text: str

    def __str__(self) -> str:
        return f"  {self.mark:<2}  {self.name:<20} {self.text}"
