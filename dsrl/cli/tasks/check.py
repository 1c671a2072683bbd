"""`dsrl task check NAME`: what a task is worth, before anything is paid for."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dsrl.cli.tasks.loading import Words, load
from dsrl.cli.tasks.near_misses import misses
from dsrl.cli.tasks.validate import (
    Case,
    Fault,
    Read,
    constants_that_pay,
    demo_faults,
    gold_faults,
    near_misses,
    notes,
    read,
)
from dsrl.core.errors import UserError
from dsrl.data.images import prompt_text
from dsrl.data.source import Item, Source
from dsrl.data.task import Task
from dsrl.graders import KINDS

LISTED = 20
BOTH = ("none", "all")
WIDTH = 100


def check(given: Words) -> int:
    """Print the report; 1 if the task isn't fit for use."""
    most = _most(given)
    overrides = {key: value for key, value in given.options.items() if key != "items"}
    report = Report(load(replace(given, options=overrides)), print, most)
    report.run()
    return 1 if report.num_faults else 0


def _most(given: Words) -> int | None:
    """Items whose near misses are tried: items=NUMBER, or all."""
    wanted = given.options.get("items")
    if wanted is None:
        return None
    if wanted != "all" and not (wanted.isdigit() and int(wanted)):
        raise UserError("items: a number, or all", got=wanted)
    return 10**9 if wanted == "all" else int(wanted)


def kind(task: Task) -> str:
    """The name of the answer kind, as a task file has it."""
    target = f"dsrl.graders.{type(task.answer).__name__}"
    return next((name for name, known in KINDS.items() if known == target), type(task.answer).__name__)


class Report:
    """Looks at one part after another, says what it finds and counts what is wrong."""

    def __init__(self, task: Task, say: Callable[[str], None], most: int | None = None) -> None:
        self.task, self.say, self.most = task, say, most
        self.num_faults = 0

    def run(self) -> None:
        """Definition, demos, data, grader, and how it all looks."""
        task = self.task
        self.say(f"{task.name}: {kind(task)}, graded by {type(task.answer).__name__} {task.answer.digest()}")
        self.say(f"told     {task.output_instruction}")
        demos = list(demo_faults(task))
        readable = ", each ends in an answer that can be read" if task.demos and not demos else ""
        self.say(f"demos    {len(task.demos)}{readable}")
        self._list("demo", demos)
        test = self._data("test", task.test)
        self._data("gold", task.gold, needed=False)
        items = list(test.items.values()) if test else _of_demos(task)
        if not items:
            self._fault("grader   can't be proved: no test row and no demo has an answer")
            return
        cases = near_misses(task, items, self.most)
        self._misses(cases, "test rows" if test else "demos")
        self._constants(items)
        self._show(items[0])
        self.say(f"\n{task.name}: " + (f"faults: {self.num_faults}" if self.num_faults else "all is well"))

    def _data(self, name: str, source: Source | None, *, needed: bool = True) -> Read | None:
        """One data set; one that isn't needed may be out of reach."""
        if source is None:
            self.say(f"{name:<8} none" + (": models won't be measured" if needed else ""))
            return None
        try:
            found = read(source, self.task.answer)
        except UserError as error:
            first, *rest = str(error).splitlines()
            (self._fault if needed else self.say)(f"{name:<8} not checked: {first}")
            for line in rest if needed else ():
                self.say(f"  {line}")
            return None
        self._told(name, source, found)
        return found

    def _told(self, name: str, source: Source, found: Read) -> None:
        expected = f", not {source.size:,} as the task says" if source.size not in (None, len(found.rows)) else ""
        self.say(f"{name:<8} {source.path}: {len(found.rows):,} rows{expected}, {len(found.faults)} ill-formed")
        for line in notes(self.task, found, source.output):
            self.say(f"  {line}")
        self._list("row", found.faults)
        wrong = list(gold_faults(self.task, found, source.output))
        right = len(found.items) - len({fault.row for fault in wrong})
        self.say(f"  {right:,} of {len(found.items):,} gold answers grade themselves right")
        self._list("row", wrong)

    def _misses(self, cases: Sequence[Case], place: str) -> None:
        self.say(f"\n{'near misses, from ' + place:<44} replies   right   expected")
        for case in cases:
            self.say(f"  {case.name:<42} {case.replies:>7,} {case.right:>7,}   {case.expected}")
            self.num_faults += len(case.wrong)
            for reply in case.wrong[:3]:
                self.say(f"    wrongly {'rejected' if case.expected == 'all' else 'accepted'}: {reply[-80:]!r}")
        wrongly = {expected: sum(len(case.wrong) for case in cases if case.expected == expected) for expected in BOTH}
        self.say(f"  wrongly accepted {wrongly['none']:,}, wrongly rejected {wrongly['all']:,}")

    def _constants(self, items: Sequence[Item]) -> None:
        paid, num_items = constants_that_pay(self.task.answer, items)
        self.say(
            f"\nconstant replies, tried on {num_items} items: " + ("none is right" if not paid else "some are right")
        )
        for name, num_right in paid.most_common(8):
            self.say(f"  {name} is right on {num_right} items: training would find it")

    def _show(self, item: Item) -> None:
        self.say("\nA prompt, as every model gets it:")
        self.say(textwrap.indent(prompt_text(self.task.prompt(item.input)), "  | ", lambda _: True))
        for reply in _two_replies(self.task, item):
            grade = self.task.answer.for_question(item.input).grade(reply, item.answer)
            self.say(f"Reply {textwrap.shorten(repr(reply), WIDTH)}")
            self.say(f"  -> {grade.reason}; correct {grade.correct}, format {grade.format_ok}, read {grade.parsed!r}")

    def _list(self, what: str, faults: Sequence[Fault]) -> None:
        for fault in faults[:LISTED]:
            self._fault(f"    {what} {fault.row}: {fault.what}")
        if len(faults) > LISTED:
            self.num_faults += len(faults) - LISTED
            self.say(f"    and {len(faults) - LISTED} more")

    def _fault(self, text: str) -> None:
        self.num_faults += 1
        self.say(text)


def _of_demos(task: Task) -> list[Item]:
    """Demos as items, for a task without a test set."""
    answers = [(demo.input, task.answer.for_question(demo.input).parse(demo.output)) for demo in task.demos]
    return [Item(input=question, answer=answer) for question, answer in answers if answer is not None]


def _two_replies(task: Task, item: Item) -> Iterator[str]:
    """One that must be right, and one that mustn't though its form is right."""
    grader = task.answer.for_question(item.input)
    made = list(misses(task, item, None))
    yield next(miss.reply for miss in made if miss.right)
    wrong = [miss.reply for miss in made if miss.right is False]
    yield next((reply for reply in wrong if grader.grade(reply, item.answer).format_ok), wrong[-1])
