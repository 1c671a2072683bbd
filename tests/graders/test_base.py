import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsrl.core.errors import UserError
from dsrl.graders import KINDS, Choice, Code, Grader, Json, List, Number, Regex, Set, Sql, Text
from dsrl.graders.rebuild import rebuild
from dsrl.pipeline.config import build
from tests.command import CHECKOUT
from tests.graders.kinds import ANSWERS, OPTIONS, kind

PIECES = ["<answer>", "</answer>", "<answer>B", "\\boxed{", "{", "}", "#### ", "1,", "1 ", "1/", "1e", "$", "* ", " "]
PIECES += [
    "\n",
    "```sql\n",
    "```\n",
    "answer is ",
    "answer          ",
    "A: ",
    "(A) ",
    "\\frac{1}",
    "x 10^",
    "[",
    '{"a":',
    "; ",
]
PIECES += ["SELECT ", "Verdict:", "é", "\\text{a", "the ", "option *"]


def test_every_kind_of_the_table_is_tested_here() -> None:
    assert OPTIONS.keys() == ANSWERS.keys() == KINDS.keys()
    assert all(KINDS[name] == f"dsrl.graders.{type(kind(name)).__name__}" for name in KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_writes_it_reads_as_right(name: str) -> None:
    """How labelled data become training texts, and how a task proves its grader on its own gold."""
    grader, answer = kind(name), ANSWERS[name]
    reply = f"I think so.\n{grader.write(answer)}"
    assert grader.grade(reply, answer).reason == "right"
    assert grader.reward(reply, answer, 0.3) == pytest.approx(1.0)
    assert grader.correct_anywhere(reply, answer)
    assert grader.gold(answer) == answer
    assert name == "code" or grader.gold(grader.write(answer)) == grader.parse(reply) == answer


@pytest.mark.parametrize("name", KINDS)
def test_the_instruction_shows_the_very_marks_that_are_read(name: str) -> None:
    grader = kind(name)
    marks = {
        "number": "####",
        "math": "\\boxed{",
        "mixed": "\\boxed{",
        "sql": "```sql",
        "code": "```python",
        "regex": "Verdict:",
    }
    mark = marks.get(name, "<answer>")
    assert mark in grader.instruction
    assert mark in grader.write(ANSWERS[name])


@pytest.mark.parametrize("name", KINDS)
def test_repeating_the_instruction_is_no_answer(name: str) -> None:
    """A model that echoes its prompt must not be paid for the example in it."""
    assert kind(name).grade(kind(name).instruction, ANSWERS[name]).reason == "no answer"


def test_digests_tell_graders_apart() -> None:
    assert len({kind(name).digest() for name in KINDS}) == len(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_comes_back_from_its_identity_and_a_question_leaves_it_as_it_is(name: str) -> None:
    grader = kind(name)
    assert rebuild(grader.key_fields()) == grader
    assert grader.for_question("A: yes\nB: no").digest() == grader.digest()
    assert grader.question == ""


@pytest.mark.parametrize("length", [20_000, pytest.param(1_000_000, marks=pytest.mark.e2e)])
@pytest.mark.parametrize("name", KINDS)
def test_long_replies_are_graded_in_one_pass(name: str, length: int) -> None:
    """A pattern that backtracks over twenty thousand repeats would never come to its end."""
    grader = kind(name).for_question("A: yes\nB: no" if name in ("choice", "mixed") else "")
    for piece in PIECES:
        reply = f"<answer>{piece * (length // len(piece))}</answer>"
        grader.parse(reply)
        grader.parse_anywhere(reply)


@pytest.mark.parametrize("name", ["number", "choice", "math", "mixed", "text"])
def test_graders_do_in_threads_what_they_do_alone(name: str) -> None:
    """No signals, no shared state: rewards are computed in the threads of a trainer."""
    grader = kind(name)
    replies = [grader.write(answer) for answer in ("4", "B", "C", "x", "\\sqrt{4}", "2+2") * 30]
    alone = grader.grade_many([(reply, "4") for reply in replies])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda reply: grader.grade(reply, "4"), replies)) == alone


@pytest.mark.parametrize("name", KINDS)
def test_the_documentation_names_every_kind_and_option(name: str) -> None:
    page = (CHECKOUT / "docs" / "answers.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    options = {field.name for field in dataclasses.fields(kind(name))}  # type: ignore[arg-type]
    assert options <= set(re.findall(r"`(\w+)`", row.rpartition(" | ")[2]))


class Shouted(Grader):
    """A kind as a user writes it: three members."""

    @property
    def instruction(self) -> str:
        return "Shout the answer."

    def parse(self, reply: str) -> str | None:
        return reply.rstrip("!").lower() if reply.endswith("!") else None

    def parse_anywhere(self, reply: str) -> str | None:
        return reply.rstrip("!").lower()


def test_a_kind_of_ones_own_needs_three_members() -> None:
    assert Shouted().grade("YES!", "yes").reason == "right"
    assert Shouted().grade("NO!", "yes").reason == "wrong"
    assert Shouted().grade("yes", "yes").reason == "no answer"
    assert Shouted().gold("yes") == "yes"
    with pytest.raises(UserError, match="define `write"):
        Shouted().write("yes")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "choice", "options": "ABCA"}, "letter A"),
        ({"name": "choice", "options": "abc"}, r"task.answer.options: .*\n.*'abc'"),
        ({"name": "choice", "letters": "ABC"}, r"task.answer.letters: unknown key\n.*allowed: options"),
        ({"name": "label"}, "task.answer.labels is missing"),
        ({"name": "label", "labels": ["yes"]}, "task.answer.labels"),
        ({"name": "label", "labels": ["yes", "Yes"]}, "`yes` would mean more than one label"),
        ({"name": "label", "labels": ["yes", "yes"]}, "`yes` would mean more than one label"),
        ({"name": "label", "labels": ["yes", "."]}, "answer.labels: .*\n.*'\\.'"),
        ({"name": "label", "labels": ["a", "b"], "synonyms": {"c": ["d"]}}, "no such label\n.*c\n.*allowed: a, b"),
        ({"name": "label", "labels": ["a", "b"], "synonyms": {"a": ["B"]}}, "`b` would mean more than one label"),
        ({"name": "number", "tolerance": -1.0}, "task.answer.tolerance"),
        ({"name": "number", "tolerance": "small"}, "task.answer.tolerance"),
        ({"name": "text", "f1": 1.5}, "task.answer.f1"),
        ({"name": "math", "timeout": 0.0}, "task.answer.timeout"),
        ({"name": "list", "item": {"kind": "nmber"}}, "task.answer.item.kind: no such answer kind\n.*nmber"),
        (
            {"name": "json", "fields": {"age": {"kind": "number", "unit": "years"}}},
            "task.answer.fields.age.unit: unknown",
        ),
        ({"name": "json", "fields": {}}, "task.answer.fields"),
        ({"name": "regex", "pattern": "(", "form": "{answer}", "example": "a"}, "not a regular expression"),
        ({"name": "regex", "pattern": r"(\d+)", "form": "{answer}", "example": "a"}, "doesn't read the example"),
        (
            {"name": "regex", "pattern": r"(\d+)", "form": "no place", "example": "1"},
            "must contain {answer} exactly once",
        ),
        ({"name": "maths"}, "no such answer kind\n.*maths\n.*allowed: choice, code, json"),
    ],
)
def test_a_mistake_in_the_options_is_told_with_its_key(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=rf"(?s){told}"):
        build({"kind": options.pop("name"), **options}, "task.answer")


def test_a_json_field_may_be_called_kind() -> None:
    grader = kind("json", fields={"kind": {"kind": "text"}})
    assert grader.parse('<answer>{"kind": "sea"}</answer>') == '{"kind": "sea"}'


@pytest.mark.parametrize(
    ("grader", "text"),
    [
        (Choice(options="ABC"), "D"),
        (kind("label"), "maybe"),
        (Number(), "many"),
        (List(item=Number()), "2; many"),
        (Json(fields={"age": Number()}), '{"age": "old"}'),
        (Sql().for_question("CREATE TABLE t (x);"), "SELECT y FROM t"),
        (Code(), " "),
    ],
)
def test_gold_outside_of_what_can_be_answered_is_not_read(grader: Grader, text: str) -> None:
    assert grader.gold(text) is None


@pytest.mark.parametrize(
    ("grader", "text", "answer"),
    [
        (Choice(), "so <answer>B</answer>", "B"),
        (Choice().for_question("A: one\nB: two"), "two", "B"),
        (Set(item=Number()), '["3", "2"]', '["3", "2"]'),
        (Set(item=Number()), "[3, 2]", '["3", "2"]'),
        (Code(), "assert f(1) == 2", "# tests\nassert f(1) == 2"),
        (Text(), "I say the sea", "I say the sea"),
    ],
)
def test_gold_is_a_solution_or_a_bare_answer(grader: Grader, text: str, answer: str) -> None:
    assert grader.gold(text) == answer


def test_items_that_hold_the_separator_are_written_as_json() -> None:
    assert Set().parse(Set().write('["a; b", "c"]')) == '["a; b", "c"]'


def test_answers_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(UserError, match="can't be an item"):
        List(item=Number()).write('["many"]')
    with pytest.raises(UserError, match="tests but no program"):
        Code().write("# tests\nassert True")


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(a|aa)+$", r"(?:a*)*c"], ids=["nested", "alternatives", "stars"])
def test_a_pattern_that_backtracks_for_ever_finds_nothing(pattern: str) -> None:
    grader = Regex(pattern=f"x({pattern}|y)", form="x{answer}", example="y", timeout=0.1)
    assert grader.grade("x" + "a" * 5_000 + "!", "y").reason in ("no answer", "wrong")
