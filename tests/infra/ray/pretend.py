"""Commands of Slurm that print what a test says: for what no real cluster can be made to say."""

import os
from pathlib import Path

import pytest


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **outputs: str) -> Path:
    """Puts programs of these names first on the PATH. A text that begins with `exit` is an error's. Each call's words
    are added to `calls`."""
    place = folder / "bin"
    place.mkdir()
    for name, output in outputs.items():
        failing = output.removeprefix("exit ") if output.startswith("exit ") else None
        end = f"cat <<'E' >&2\n{failing}\nE\nexit 1\n" if failing is not None else f"cat <<'E'\n{output}\nE\n"
        (place / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >> {place}/calls\n{end}')
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return place
