"""Build a grader from its key fields, in a child process or from the `grader.json` of an export."""

from collections.abc import Mapping
from typing import Any

from dsrl.core.component import COMPONENTS
from dsrl.core.plugins import import_plugins
from dsrl.graders.base import Grader


def rebuild(key_fields: Mapping[str, Any]) -> Grader:
    """Return the grader with these key fields. Raises ValueError if its class is unknown or has changed since.

    Classes are found by component name among the modules that are imported already: those of `dsrl.graders`, and the
    plugins that the user gave. The key fields never name a module to import.
    """
    import_plugins()
    grader = _rebuild(key_fields)
    if not isinstance(grader, Grader) or grader.key_fields() != key_fields:
        raise ValueError(f"{key_fields.get('component')} has changed since this grader was saved")
    return grader


def _rebuild(value: Any) -> Any:
    if isinstance(value, Mapping) and "component" in value and "version" in value:
        cls = COMPONENTS.get(value["component"])
        if cls is None or not issubclass(cls, Grader):
            raise ValueError(f"no grader is named {value['component']}: is its module among the plugins?")
        return cls(**{key: _rebuild(item) for key, item in value.items() if key not in ("component", "version")})
    if isinstance(value, Mapping):
        return {key: _rebuild(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_rebuild(item) for item in value)
    return value
