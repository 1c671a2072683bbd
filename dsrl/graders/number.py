"""A number after a marker, such as GSM8K's `#### 72`."""

from collections.abc import Sequence
from fractions import Fraction

from pydantic import Field

from dsrl.core.component import Many, component
from dsrl.graders.base import Grader, first_alternative
from dsrl.graders.quantities import INTEGER, find_numbers, fraction, read_quantity, spell, unit_of, value_of


@component("graders.number")
class Number(Grader):
    """Reads integers, decimals, fractions, mixed numbers, powers of ten, separators, currency signs, units and
    `million`; compares values, not spellings."""

    version = 3
    accepts_alternatives = True
    marker: str = Field(default="####", min_length=1)
    """What stands before the final number."""
    tolerance: float = Field(default=0.0, ge=0)
    """Largest absolute difference that still counts as the same."""
    relative_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Largest difference as a share of the right answer that still counts as the same."""
    units: Many[str] = ()
    """Spellings of the unit that is asked for, the shown one first: a number in another unit is no answer. Empty: a
    unit is read over, also `%`."""

    @property
    def instruction(self) -> str:
        unit = f" in {self.units[0]}" if self.units else ""
        return f'Work step by step, then end with "{self.marker} " and the final number{unit}.'

    def marked(self, reply: str) -> Sequence[str]:
        return [tail.strip().partition("\n")[0] for tail in reply.split(self.marker)[1:]]

    def parse(self, reply: str) -> str | None:
        _head, marker, tail = reply.rpartition(self.marker)
        return self.read(tail.strip().partition("\n")[0]) if marker else None

    def read(self, text: str) -> str | None:
        if INTEGER.fullmatch(text):
            return text
        quantity = read_quantity(text)
        return spell(quantity.value) if quantity is not None and self._is_wanted(quantity.unit) else None

    def parse_anywhere(self, reply: str) -> str | None:
        if (parsed := self.parse(reply)) is not None:
            return parsed
        for match in reversed(find_numbers(reply, 16)):
            value = value_of(match)
            if value is not None and self._is_wanted(unit_of(match)) and (answer := spell(value)) is not None:
                return answer
        return None

    def write(self, answer: str) -> str:
        return f"{self.marker} {first_alternative(answer)}"

    def same(self, first: str, second: str) -> bool:
        if first == second:
            return True
        value, right = fraction(first), fraction(second)
        if value is None or right is None:
            return False
        allowed = max(Fraction(self.tolerance), Fraction(self.relative_tolerance) * abs(right))
        return abs(value - right) <= allowed

    def _is_wanted(self, unit: str) -> bool:
        return not self.units or not unit or unit.lower() in {known.strip().lower() for known in self.units}
