"""Records as Parquet files that pandas, `datasets` and DuckDB can read."""

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

if TYPE_CHECKING:
    import pyarrow

Row = TypeVar("Row")


ABOUT = b"dsrl"
"""Key in a Parquet file's metadata for a record about all rows."""


def write_table(path: Path, rows: Sequence[Any], cls: type, about: Any = None) -> None:
    """Write records of one class. The columns are its fields, also without rows. `about` is a record about all rows,
    kept in the file's metadata."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([_plain(row) for row in rows], schema=schema(cls))
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        if about is not None:
            writer.add_key_value_metadata({ABOUT: json.dumps(_plain(about)).encode()})


def read_table(path: Path, cls: type[Row]) -> tuple[Row, ...]:
    """Read and check records. Raises `pydantic.ValidationError` if a row doesn't fit the class."""
    import pyarrow.parquet
    from pydantic import TypeAdapter

    # Validating JSON allows arrays for tuples and objects for dataclasses, while scalars stay strict.
    # Not pyarrow's read_table: it imports pyarrow.dataset and with it pandas, which takes more than a second.
    rows = pyarrow.parquet.ParquetFile(path).read().to_pylist(maps_as_pydicts="strict")
    adapter: TypeAdapter[tuple[Row, ...]] = TypeAdapter(tuple[cls, ...])  # type: ignore[valid-type]
    return adapter.validate_json(json.dumps(rows))


def read_about(path: Path, cls: type[Row]) -> Row | None:
    """The record `about` of `write_table`; None if the file has none."""
    import pyarrow.parquet
    from pydantic import TypeAdapter

    text = (pyarrow.parquet.ParquetFile(path).metadata.metadata or {}).get(ABOUT)
    return TypeAdapter(cls).validate_json(text) if text else None


@cache
def schema(cls: type) -> "pyarrow.Schema":
    """The Parquet columns of a record class."""
    import pyarrow

    struct = _arrow_type(cls)
    return pyarrow.schema([struct.field(number) for number in range(struct.num_fields)])


def _plain(row: Any) -> dict[str, Any]:
    return dataclasses.asdict(row)


def _arrow_type(annotation: Any) -> Any:
    import pyarrow

    scalars = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    if annotation in scalars:
        return scalars[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _arrow_type(arguments[0])
    if origin is Literal:
        return pyarrow.string()
    if origin in (Union, types.UnionType):
        return _arrow_type(next(argument for argument in arguments if argument is not type(None)))
    if origin is tuple:
        return pyarrow.list_(_arrow_type(arguments[0]))
    if origin is dict:
        return pyarrow.map_(_arrow_type(arguments[0]), _arrow_type(arguments[1]))
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        fields = dataclasses.fields(annotation)
        return pyarrow.struct([pyarrow.field(field.name, _arrow_type(hints[field.name])) for field in fields])
    raise TypeError(f"no column type for {annotation}")
