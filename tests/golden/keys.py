"""The keys of all shipped experiments, written down: a change that moves one abandons everything people paid for.

`python -m tests.golden.keys` writes them anew, for a change of keys that is meant.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dsrl.core.digest import digest, text_digest
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState

FILE = Path(__file__).with_name("keys.json")
LONG = 60
"""Texts longer than this are written down as a digest."""


def keys(pipeline: Mapping[str, Stage], state: PipelineState) -> dict[str, dict[str, Any]]:
    """Stage -> its key and everything of its own that the key is made of; test set and base model stand for any."""
    known = {
        "definition": digest(state.task.definition(), 20),
        "format": digest(state.task.format(), 20),
        "test": "the test set",
        "base": "the base model",
    }
    found = {}
    for name, stage in pipeline.items():
        if stage.stored:
            key = stage.key({stage.storage_name(need): known[need] for need in stage.inputs})
            known |= dict.fromkeys(stage.outputs, key)
            found[name] = {"key": key, "parts": dict(leaves(stage.parts()))}
    task = dict(leaves({"definition": state.task.definition(), "format": state.task.format()}))
    return {"task": {"key": digest([known["definition"], known["format"]]), "parts": task}, **found}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path -> value of every leaf; long texts by their digest."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}.{number}")
    else:
        yield path, f"text {text_digest(value)}" if isinstance(value, str) and len(value) > LONG else value


@cache
def golden() -> dict[str, Any]:
    """`experiments`: name -> stage -> key; `parts`: key -> leaves."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def faults(experiment: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Stages whose key has moved and the parts that moved it; empty where all is as written down."""
    known = golden()["experiments"].get(experiment)
    if known is None:
        return [f"{experiment} isn't written down yet: python -m tests.golden.keys"]
    wrong = [f"{name}: no such stage any more" for name in known if name not in found]
    for name, stage in found.items():
        if stage["key"] == known.get(name):
            continue
        before = golden()["parts"].get(known.get(name), {})
        after = stage["parts"]
        moved = [f"{part} {before.get(part)!r} -> {after.get(part)!r}" for part in sorted({*before, *after})
                 if before.get(part, ...) != after.get(part, ...)]  # fmt: skip
        wrong.append(f"{name}: {'; '.join(moved) or 'only because a stage before it moved'}")
    if wrong:
        wrong.append(
            "if this is meant, raise `version` of the component (a new field: `added_fields`), say so in CHANGELOG.md, "
            "and write the keys anew: python -m tests.golden.keys"
        )
    return wrong


def write(all_keys: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """The whole file."""
    experiments = {
        name: {stage: one["key"] for stage, one in found.items()} for name, found in sorted(all_keys.items())
    }
    parts = {one["key"]: one["parts"] for found in all_keys.values() for one in found.values()}
    text = json.dumps({"experiments": experiments, "parts": dict(sorted(parts.items()))}, indent=0)
    FILE.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    import os
    import tempfile

    from tests.cli.test_experiments import EXPERIMENTS, OTHER, hundred_demos, overrides, own_task
    from tests.composed import built

    os.environ.update(OPENAI_API_KEY="not a key", HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as folder:
        demos = hundred_demos(Path(folder))
        write({name: keys(*built(*overrides(name, OTHER[own_task(name)], demos))) for name in sorted(EXPERIMENTS)})


if __name__ == "__main__":
    main()
