"""Components: frozen, strictly checked dataclasses that a config builds, and the keys that are made from them."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field, Strict

Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], Strict(False)]
"""A tuple that may be given as a list: scalars are strict, containers lax."""

Class = TypeVar("Class", bound=type)

CONFIG = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)

COMPONENTS: dict[str, "type[Component]"] = {}
"""Component name -> class, of every module imported so far."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, dataclasses.field))
def component(name: str | None) -> Callable[[Class], Class]:
    """Make a class a component: a frozen, keyword-only dataclass that validates its values and names the wrong field.

    `name` stands for the class in keys and stored files, so it must never change: moving or renaming the class then
    leaves all keys as they are. None is for base classes and settings that never take part in a key.
    Raises TypeError if another class has the name already.
    """

    def decorate(cls: Class) -> Class:
        made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)
        made.component_name = name
        if name is not None:
            other = COMPONENTS.setdefault(name, made)
            if _definition(other) != _definition(made):
                raise TypeError(f"component name {name!r} of {made.__qualname__} is taken by {other.__qualname__}")
            COMPONENTS[name] = made
        return made  # type: ignore[no-any-return]

    return decorate


def _definition(cls: type) -> tuple[str | None, str]:
    """File and name of a class: the same for a module that is imported under two names."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None), cls.__qualname__


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, dataclasses.field))
def record(cls: Class) -> Class:
    """A checked dataclass for rows that flow between stages; it has slots, because there may be 100,000 of them."""
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)(cls)  # type: ignore[return-value]


class Component:
    """Base class of what a config may build. `key_fields` goes into the keys of stages."""

    component_name: ClassVar[str | None] = None
    """Stable name in keys, set by `@component(name)`."""
    excluded_from_key: ClassVar[frozenset[str]] = frozenset()
    """Fields that change speed, cost or location but never a result."""
    added_fields: ClassVar[Mapping[str, Any]] = {}
    """Fields added after the first release -> the value that means the behaviour before. With that value the field is
    left out of the key, so keys from before the field existed stay valid."""
    version: ClassVar[int] = 1
    """Raise it when the same fields begin to produce another result."""

    needs_weights: ClassVar[bool] = False
    """Whether it runs a model on this machine, so that the base model's weights must be here."""

    def check(self) -> None:
        """Check what can be checked quickly before any work starts. Raises `UserError`."""

    def key_fields(self) -> dict[str, Any]:
        """Name, version and every field that can change a result, as a JSON-like value. Raises TypeError for a class
        without a component name."""
        cls = type(self)
        if cls.component_name is None:
            raise TypeError(f"{cls.__qualname__} has no component name: decorate it with @component('...')")
        fields = {
            field.name: to_key_value(value)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if field.name not in cls.excluded_from_key
            if not equals_added_default(value := getattr(self, field.name), cls.added_fields, field.name)
        }
        return {"component": cls.component_name, "version": cls.version, **fields}


def equals_added_default(value: Any, added_fields: Mapping[str, Any], name: str) -> bool:
    """Whether a field added later has the value that means the behaviour before it existed."""
    return name in added_fields and bool(value == added_fields[name])


def to_key_value(value: Any) -> Any:
    """The JSON-like value that stands in keys for anything that a component may hold. Raises TypeError for others."""
    if isinstance(value, Component):
        return value.key_fields()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_key_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_key_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_key_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_key_value(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} can't stand in a key: give it the base class Component")
