"""`dsrl task new NAME`: write a task file to fill in, which already runs."""

import json
import re
from pathlib import Path

from dsrl.cli.tasks.listing import files
from dsrl.cli.tasks.loading import Words
from dsrl.core.errors import UserError

TEMPLATE = Path(__file__).with_name("template.yaml")
DEFAULT = Path("my_conf")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
DEMOS = (
    ("Omar has 10 boxes. Omar sells 3 again. How many boxes now?", "10-3=7 #### 7"),
    ("Mia has 7 stamps. Mia gets 4 more. Mia gives 2 away. How many stamps now?", "7+4=11, 11-2=9 #### 9"),
)
TEST = (
    ("Ada has 6 bowls. Ada finds 5 more. How many bowls now?", "11"),
    ("Leo has 12 keys. Leo loses 4 today. Leo throws 2 out. How many keys now?", "6"),
    ("Zoe has 3 plums. Zoe buys 6 more. Zoe wins 1 extra. How many plums now?", "10"),
    ("Tom has 9 nails. Tom gives 5 away. Tom gets 2 more. Tom sells 1 again. How many nails now?", "5"),
)


def new(given: Words) -> int:
    """Write a task file, demos and a test set. Existing files are never overwritten."""
    name, folder = given.name, given.config_dir or DEFAULT
    if given.options:
        raise UserError("task new takes a name only", got=" ".join(given.options))
    _check(name, folder)
    written = _write(name, folder)
    print("\n".join(f"written  {path}" for path in written))
    print(f"fill in  {written[0]}, then:")
    print(f"  dsrl task check {name} --config-dir {folder}")
    print(f"  dsrl --config-dir {folder} experiment=quickstart task={name}     # as it is")
    print(f"  dsrl --config-dir {folder} task={name} teacher=... model=...     # for your task")
    return 0


def _check(name: str, folder: Path) -> None:
    if not NAME.fullmatch(name):
        raise UserError("task new: not a valid name", got=name, allowed="letters, digits and _, starting with a letter")
    taken = [path for path in files(folder) if path.stem == name]
    if taken:
        raise UserError(f"task {name} exists already", got=taken[0], next_step="take another name, or remove the file")
    beside = folder / "tasks" / name
    if beside.exists():
        raise UserError(f"{beside} exists already", next_step="take another name, or remove the folder")


def _write(name: str, folder: Path) -> list[Path]:
    definition, beside = folder / "task" / f"{name}.yaml", folder / "tasks" / name
    text = TEMPLATE.read_text(encoding="utf-8").replace("FOLDER", beside.as_posix()).replace("NAME", name)
    demos = [{"input": question, "output": output} for question, output in DEMOS]
    test = [{"question": question, "answer": answer} for question, answer in TEST]
    contents = {definition: text, beside / "demos.jsonl": _lines(demos), beside / "test.jsonl": _lines(test)}
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(contents)


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
