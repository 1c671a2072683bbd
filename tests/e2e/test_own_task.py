"""A new user's own task, from `dsrl task new` to a finished run and `dsrl compare`, with the documented commands."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pile import say, solution, story
from tests.e2e.runs import SMALL, Place, metrics
from tests.llm.server import Json, Script, serve

pytestmark = pytest.mark.e2e
TASK = """\
name: pile
instruction: >-
  Answer short stories about one pile of things that several people change. Somebody has a number of things; then other
  people, one after another, add some or take some away. Work out how many there are in the end, whoever did it.
input_format: Plain present-tense sentences, each about somebody else; the last asks how many things there are now.
demos:
  - input: Omar has 10 shells. Lena finds 3 more. Paul gives 4 away. How many shells now?
    output: "10+3=13, 13-4=9 #### 9"
  - input: Tina has 7 stamps. Max throws 2 out. How many stamps now?
    output: "7-2=5 #### 5"
answer:
  kind: number
test:
  path: my_conf/tasks/pile/test.jsonl
  input: question
  output: answer
  subject: steps
"""


@pytest.fixture
def teacher() -> Iterator[Script]:
    def answer(body: Json, choice: int) -> str:
        return say(body, "", choice).content or ""

    with serve(answer=answer) as script:
        yield script


def test_an_own_task_from_new_to_compare(tmp_path: Path, cache: Path, teacher: Script) -> None:
    place = Place(tmp_path, cache)
    assert place.dsrl("task", "new", "pile").code == 0
    (tmp_path / "my_conf/task/pile.yaml").write_text(TASK)
    rng = random.Random(0)
    stories = [(story(rng, 1 + number % 3), str(1 + number % 3)) for number in range(24)]
    rows = [{"question": text, "answer": solution(text)[-2:].strip(), "steps": steps} for text, steps in stories]
    (tmp_path / "my_conf/tasks/pile/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    checked = place.dsrl("task", "check", "pile", "--config-dir", "my_conf")
    assert checked.code == 0, checked.out
    assert "24 of 24" in checked.out

    mine = ("task=pile", "teacher=server", "teacher.model=pile-rules", f"teacher.base_url={teacher.url}")
    ran = place.dsrl("--config-dir", "my_conf", *SMALL, *mine, "name=pile", "hydra.run.dir=run")
    assert ran.code == 0, ran.err
    found = metrics(tmp_path / "run")
    assert found["status"] == "finished"
    assert found["rows"]["generate"]["out"] == 24
    assert found["evaluate"]["difference"]["num_items"] == 24
    assert set(found["evaluate"]["trained"]["subjects"]) == {"1", "2", "3"}
    assert "subject" in (tmp_path / "run/report.html").read_text()
    for role in ("base", "trained"):
        assert Path(found["evaluate"][role]["predictions"]).is_file()
        assert f"\n{role} " in ran.err

    compared = place.dsrl("compare", "run")
    assert compared.code == 0, compared.err
    estimate = 100 * found["evaluate"]["difference"]["estimate"]
    assert f"{estimate:+.1f} (" in compared.out
    assert "exact McNemar" in compared.out
    assert "\n3 " in compared.out
