"""What the configuration builds: frozen, strict descriptions, cheap to make, with heavy work only when called."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field, Strict

Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], Strict(False)]
"""A tuple that may be given as a list: scalars are strict, containers lax."""

Class = TypeVar("Class", bound=type)

CONFIG = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, dataclasses.field))
def part(cls: Class) -> Class:
    """A frozen, keyword-only dataclass whose values are checked when it is made: a wrong one names its field."""
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)  # type: ignore[return-value]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, dataclasses.field))
def record(cls: Class) -> Class:
    """As `part`, for the rows that flow between stages: with slots, because there may be a hundred thousand."""
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)(cls)  # type: ignore[return-value]


class Part:
    """A piece of the configuration. Its identity, everything that can change a result, goes into the keys of stages."""

    speed: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how fast or where, never what: they stay out of the identity."""
    version: ClassVar[int] = 1
    """Raised when the same fields come to mean another result."""

    def identity(self) -> dict[str, Any]:
        """Class, version and every field but the speed knobs, as a JSON-like value."""
        cls = type(self)
        fields = {
            field.name: identify(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if field.name not in cls.speed
        }
        return {"class": f"{cls.__module__}.{cls.__qualname__}", "version": cls.version, **fields}


def identify(value: Any) -> Any:
    """The JSON-like identity of anything a description may hold."""
    if isinstance(value, Part):
        return value.identity()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: identify(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): identify(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [identify(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(identify(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no identity: give it the base class Part")
