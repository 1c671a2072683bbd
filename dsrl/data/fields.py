"""Read cells of a row by column name (`a.b` is field b of column a) and fill templates with them."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any


class _RowFormatter(Formatter):
    """Resolve `{context.contexts}` as field `contexts` of column `context`."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        del args
        return lookup(kwargs, field_name), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(value, format_spec) if format_spec else cell_text(value)


def fill_template(template: str, row: Mapping[str, Any]) -> str:
    return _RowFormatter().vformat(template, (), row)


def template_columns(template: str) -> set[str]:
    """The columns that a template names. Raises ValueError for unbalanced braces."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def has_field(row: Mapping[str, Any], name: str) -> bool:
    if name in row:
        return True
    first, _, rest = name.partition(".")
    return bool(rest) and isinstance(row.get(first), Mapping) and has_field(row[first], rest)


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column. Raises KeyError if the row has no such column."""
    if name in row:
        return row[name]
    first, _, rest = name.partition(".")
    return lookup(row[first], rest) if rest else row[first]


def cell_text(value: Any) -> str:
    """A cell as text: empty for None, one line per element of a list."""
    if value is None:
        return ""
    return "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
