"""Reading single cells out of rows, by the names of columns and in templates."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any


class _Template(Formatter):
    """`{context.contexts}`: a column, or a field of it; lists stand one to a line."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        del args
        return lookup(kwargs, field_name), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(value, format_spec) if format_spec else text(value)


def filled(template: str, row: Mapping[str, Any]) -> str:
    """A template with a row's columns in their places."""
    return _Template().vformat(template, (), row)


def columns(template: str) -> set[str]:
    """The columns that a template names. Raises ValueError for one with unbalanced braces."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def has(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column, or a column with such a field."""
    if name in row:
        return True
    first, _, rest = name.partition(".")
    return bool(rest) and isinstance(row.get(first), Mapping) and has(row[first], rest)


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of `a.b`, field b of column a."""
    if name in row:
        return row[name]
    first, _, rest = name.partition(".")
    return lookup(row[first], rest) if rest else row[first]


def text(value: Any) -> str:
    """A cell as text: nothing for a missing one, a line for each item of a list."""
    if value is None:
        return ""
    return "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
