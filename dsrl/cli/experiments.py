"""`dsrl experiment ls`: the presets in conf/experiment, described by the header of each file."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.core.resources import home

HEADER = re.compile(r"# @package _global_\n# (dsrl .+)\n# (.+)\n((?:# .+\n)+)")
PAPER = "Paper: "


@dataclass(frozen=True)
class Experiment:
    """The header of an experiment's file."""

    name: str
    command: str
    place: str
    """Table or figure that it belongs to."""
    meaning: str
    figures: str
    """The paper's results for the same row; empty if there are none."""

    @property
    def first_sentence(self) -> str:
        return re.split(r"(?<=[.:;]) (?=[A-Za-z])", self.meaning, maxsplit=1)[0]


def experiment(arguments: list[str]) -> int:
    """`dsrl experiment ls [WORD]`."""
    if not arguments or arguments[0] != "ls" or len(arguments) > 2:
        allowed = "dsrl experiment ls [WORD]; to run one: dsrl experiment=NAME task=... teacher=..."
        raise UserError("experiment: unknown arguments", got=" ".join(arguments) or None, allowed=allowed)
    word = arguments[1] if len(arguments) == 2 else ""
    matching = [one for one in experiments() if word in f"{one.name} {one.place}".lower()]
    if not matching:
        raise UserError("experiment ls: no name or table contains this", got=word, next_step="dsrl experiment ls")
    for one in matching:
        print(f"{one.name:<34} {one.place}")
        print(textwrap.indent(textwrap.fill(one.meaning, 90), "    "))
        print(f"    {one.command}" + (f"\n    {PAPER}{one.figures}" if one.figures else ""))
    return 0


def experiments(folder: Path | None = None) -> Iterator[Experiment]:
    """All experiments by name, those outside of subfolders first. Raises `UserError` for a file without a header."""
    folder = folder or home() / "conf" / "experiment"
    paths = [path for path in folder.rglob("*.yaml") if not path.name.startswith("_")]
    for path in sorted(paths, key=lambda path: (path.parent != folder, path.parent, _natural_order(path.stem))):
        yield read(path, folder)


def read(path: Path, folder: Path) -> Experiment:
    """The header of one file."""
    header = HEADER.match(path.read_text(encoding="utf-8"))
    if header is None:
        raise UserError(
            f"{path}: no header",
            allowed="`# @package _global_`, then comment lines: the command, the table it belongs to, what it does",
            next_step="write one as in conf/experiment/paper/main.yaml",
        )
    lines = [line.removeprefix("# ") for line in header[3].splitlines()]
    figures = [line.removeprefix(PAPER) for line in lines if line.startswith(PAPER)]
    meaning = " ".join(line for line in lines if not line.startswith(PAPER))
    name = str(path.relative_to(folder).with_suffix(""))
    return Experiment(name, header[1], header[2], meaning, " ".join(figures))


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts `m_100` before `m_1000`, and both after `m`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def markdown(folder: str) -> str:
    """The table of docs/experiments.md for the experiments in a subfolder; "" for those outside of subfolders."""
    lines = ["| command | belongs to | what it does | the paper has |", "|---|---|---|---|"]
    lines += [
        f"| `{one.command}` | {one.place} | {one.first_sentence} | {one.figures or '-'} |"
        for one in experiments()
        if one.name.rpartition("/")[0] == folder
    ]
    return "\n".join(lines)
