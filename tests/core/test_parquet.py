import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dsrl.core.component import record
from dsrl.core.parquet import read_table, schema, write_table
from dsrl.data.sample import Passage, Rejected, Sample

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    type(None): st.none(),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Anything that fits a field's annotation."""
    if annotation in SCALARS:
        return SCALARS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return values(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    hints = typing.get_type_hints(annotation, include_extras=True)
    fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(annotation)}
    return st.builds(annotation, **fields)


@pytest.mark.parametrize("cls", [Sample, Rejected, Passage])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_record_comes_back_as_it_was(cls: type, data: st.DataObject, tmp_path_factory: Any) -> None:
    rows = tuple(data.draw(st.lists(values(cls), max_size=3)))
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    write_table(path, rows, cls)
    assert read_table(path, cls) == rows


@pytest.mark.parametrize("cls", [Sample, Rejected, Passage])
def test_no_rows_still_have_columns(cls: type, tmp_path: Path) -> None:
    write_table(tmp_path / "none.parquet", (), cls)
    assert read_table(tmp_path / "none.parquet", cls) == ()
    names = pyarrow.parquet.read_schema(tmp_path / "none.parquet").names
    assert names == [field.name for field in dataclasses.fields(cls)]


def test_equal_records_make_equal_bytes(tmp_path: Path) -> None:
    row = Passage(id="p", text="t", source="s", offset=0, keyword="k", rank=0, score=1.5)
    for name in ("one", "two"):
        write_table(tmp_path / name, [row] * 1000, Passage)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@record
class Reading:
    count: int
    value: float = math.pi


@record
class Label:
    count: str
    value: float


def test_a_row_that_does_not_fit_the_class_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.parquet", [Reading(count=1)], Reading)
    with pytest.raises(ValidationError, match="count"):
        read_table(tmp_path / "rows.parquet", Label)


def test_what_has_no_column_type_is_refused() -> None:
    @dataclasses.dataclass
    class Odd:
        thing: object

    with pytest.raises(TypeError, match="no column type"):
        schema(Odd)
