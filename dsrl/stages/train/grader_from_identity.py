"""A description made again from its identity, in a child process."""

import importlib
from collections.abc import Mapping
from typing import Any

from dsrl.core.component import Part
from dsrl.graders import Grader


def rebuild(identity: Mapping[str, Any]) -> Grader:
    """The grader with this identity. Raises ValueError where its class has changed since."""
    grader = _rebuilt(identity)
    if not isinstance(grader, Grader) or grader.identity() != identity:
        raise ValueError(f"{identity.get('class')} does not give back the grader it was saved from")
    return grader


def _rebuilt(value: Any) -> Any:
    if isinstance(value, Mapping) and "class" in value and "version" in value:
        module, _, name = value["class"].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        if not (isinstance(cls, type) and issubclass(cls, Part)):
            raise ValueError(f"{value['class']} is no description")
        return cls(**{key: _rebuilt(item) for key, item in value.items() if key not in ("class", "version")})
    if isinstance(value, Mapping):
        return {key: _rebuilt(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_rebuilt(item) for item in value)
    return value
