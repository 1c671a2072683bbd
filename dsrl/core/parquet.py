"""Records on disk: Parquet files that pandas, `datasets` and DuckDB read as they are."""

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
"""Where a Parquet file's own metadata says what its rows are about."""


def write_table(path: Path, rows: Sequence[Any], cls: type, about: Any = None) -> None:
    """Write records of one class; the columns are its fields, also when there are no rows. `about`: a record on all of
    them, kept in the file's metadata."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([_plain(row) for row in rows], schema=schema(cls))
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        if about is not None:
            writer.add_key_value_metadata({ABOUT: json.dumps(_plain(about)).encode()})


def read_table(path: Path, cls: type[Row]) -> tuple[Row, ...]:
    """Read records back and check them. Raises `pydantic.ValidationError` where a row doesn't fit the class."""
    import pyarrow.parquet
    from pydantic import TypeAdapter

    # In JSON, arrays are allowed for tuples and objects for dataclasses even where scalars are strict.
    # Not read_table, which imports pyarrow's data sets and with them pandas: more than a second.
    rows = pyarrow.parquet.ParquetFile(path).read().to_pylist(maps_as_pydicts="strict")
    adapter: TypeAdapter[tuple[Row, ...]] = TypeAdapter(tuple[cls, ...])  # type: ignore[valid-type]
    return adapter.validate_json(json.dumps(rows))


def read_about(path: Path, cls: type[Row]) -> Row | None:
    """What `write_table` was told about the rows; None where the file says nothing."""
    import pyarrow.parquet
    from pydantic import TypeAdapter

    told = (pyarrow.parquet.ParquetFile(path).metadata.metadata or {}).get(ABOUT)
    return TypeAdapter(cls).validate_json(told) if told else None


@cache
def schema(cls: type) -> "pyarrow.Schema":
    """The Parquet columns of a record class."""
    import pyarrow

    struct = _arrow_type(cls)
    return pyarrow.schema([struct.field(number) for number in range(struct.num_fields)])


def _plain(row: Any) -> dict[str, Any]:
    """A record as nested dicts. Empty maps stay maps, because the schema says so."""
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
