"""Files that processes share: atomic writes, appended JSON lines, following a growing file."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader sees the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON object as a line and flush it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def tail_lines(path: Path, offset: int = 0) -> tuple[list[bytes], int]:
    """The complete lines after byte `offset`, and the offset for the next call. A missing file has no lines."""
    if not path.is_file():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        added = file.read()
    end = added.rfind(b"\n") + 1
    return added[:end].splitlines(), offset + end
