"""One line of `dsrl doctor`."""

from dataclasses import dataclass
from typing import Literal

Mark = Literal["ok", "-", "!!"]


@dataclass(frozen=True)
class Finding:
    """One line. `!!`: something that was asked for won't work. `-`: absent, and not needed for what was asked."""

    mark: Mark
    name: str
    text: str

    def __str__(self) -> str:
        return f"  {self.mark:<2}  {self.name:<20} {self.text}"
