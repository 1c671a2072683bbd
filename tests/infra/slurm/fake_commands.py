"""Fake Slurm commands with given output, for what a real cluster can't be made to print."""

import os
from pathlib import Path

import pytest


def fake_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **outputs: str) -> Path:
    """Put programs with these names and outputs first on the PATH; returns their folder. An output that begins with
    `exit` goes to standard error, with exit code 1. The arguments of each call are appended to the file `calls`."""
    programs = folder / "bin"
    programs.mkdir()
    for name, output in outputs.items():
        error = output.removeprefix("exit ") if output.startswith("exit ") else None
        end = f"cat <<'E' >&2\n{error}\nE\nexit 1\n" if error is not None else f"cat <<'E'\n{output}\nE\n"
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >> {programs}/calls\n{end}')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return programs
