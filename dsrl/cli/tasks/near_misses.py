"""Replies that are nearly right, made out of right answers, and how a good grader must take each."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from dsrl.core.component import record
from dsrl.data.images import prompt_text
from dsrl.data.source import Item
from dsrl.data.task import Task
from dsrl.graders import Choice, Code, Grader, Json, Label, List, Math, Mixed, Number, Set, Span, Sql, Text
from dsrl.graders.base import first_alternative
from dsrl.graders.choice import option_texts
from dsrl.graders.latex import number
from dsrl.graders.mixed import math_options

Replies = Iterator[tuple[str, str, bool | None]]
"""What the reply is, the reply, and whether it must be right (True), mustn't (False), or is only shown (None)."""

SPELLED = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "10": "ten", "12": "twelve"}


@record
class Miss:
    """One made-up reply to one item."""

    case: str
    reply: str
    right: bool | None
    """Whether it must be graded right; None: either way, it is shown."""


def misses(task: Task, item: Item, other: str | None) -> Iterator[Miss]:
    """The near misses of an item; `other` is an answer that is not the same as its own."""
    grader = task.answer.for_question(item.input)
    item = dataclasses.replace(item, answer=first_alternative(item.answer))
    made = [
        _any(task, grader, item, other),
        *(maker(grader, item) for kind, maker in MAKERS if isinstance(grader, kind)),
    ]
    for case, reply, right in itertools.chain.from_iterable(made):
        yield Miss(case=case, reply=reply, right=right)


def _any(task: Task, grader: Grader, item: Item, other: str | None) -> Replies:
    """For answers of every kind."""
    right = grader.write(item.answer)
    yield "right answer after some reasoning", f"Let us see.\nStep by step.\n{right}", True
    yield "empty reply", "", False
    yield "no answer, though the prompt has it", "It is as the question says.", False
    yield "the prompt said again", prompt_text(task.prompt(item.input)), False
    if other is not None:
        wrong = grader.write(other)
        yield "another item's answer", wrong, False
        yield "right answer, then another", f"{right}\nNo, wait.\n{wrong}", False


def _number(grader: Number, item: Item) -> Replies:
    gold, value = item.answer, Fraction(item.answer)
    for case, wrong in _wrong_numbers(gold, value).items():
        yield case, grader.write(wrong), grader.same(wrong, gold)
    if value.denominator == 1:
        yield "with separators and decimals", grader.write(f"{int(value):,}.0"), True
    foreign = next(unit for unit in ("kelvin", "acres") if unit not in {known.lower() for known in grader.units})
    yield "another unit", grader.write(f"{gold} {foreign}"), False if grader.units else None
    if grader.units:
        yield "the unit asked for", grader.write(f"{gold} {grader.units[0]}"), True
    if gold in SPELLED:
        yield "spelled out", grader.write(SPELLED[gold]), None
    yield "two answers at once", grader.write(f"{gold} or {value + 1}"), False
    yield "in a sentence, without the marker", f"So the result is {gold}.", False


def _wrong_numbers(gold: str, value: Fraction) -> dict[str, str]:
    """Numbers that aren't the right one; the last digit is turned over by five."""
    found = {"one more": str(value + 1), "sign turned": str(-value), "ten times": str(value * 10)}
    if "/" not in gold:
        found["another last digit"] = f"{gold[:-1]}{(int(gold[-1]) + 5) % 10}"
    if gold.lstrip("-").isdigit():
        found["digits in another order"] = gold.lstrip("-")[::-1]
    return {case: wrong for case, wrong in found.items() if Fraction(wrong) != value}


def _choice(grader: Choice, item: Item) -> Replies:
    gold = item.answer
    others = [letter for letter in grader.options if letter != gold]
    for letter in others:
        yield "another option", grader.write(letter), False
    for case, text in (("(B)", f"({gold})"), ("B.", f"{gold}."), ("b", gold.lower())):
        yield f"written as {case}", grader.write(text), True
    yield "two letters", grader.write(f"{gold} or {others[0]}"), False
    yield "the article A", grader.write("A patient of this kind"), False
    yield "in a sentence, without the tag", f"So {gold} is right.", False
    yield from _option_texts(grader, item, others)


def _option_texts(grader: Choice, item: Item, others: list[str]) -> Replies:
    texts = option_texts(item.input, grader.options)
    plain = {letter: text for letter, text in texts.items() if len(text) > 1 and list(texts.values()).count(text) == 1}
    if item.answer not in plain:
        return
    yield "the option's text", grader.write(plain[item.answer]), True
    yield "letter and text", grader.write(f"{item.answer}: {plain[item.answer]}"), True
    for letter in [letter for letter in others if letter in plain][:1]:
        yield "letter beside another option's text", grader.write(f"{item.answer}: {plain[letter]}"), False
        yield "another option's text", grader.write(plain[letter]), False


def _label(grader: Label, item: Item) -> Replies:
    others = [label for label in grader.labels if label != item.answer]
    for label in others:
        yield "another label", grader.write(label), False
    yield "in capitals", grader.write(item.answer.upper()), True
    for synonym in grader.synonyms.get(item.answer, ()):
        yield "a synonym", grader.write(synonym), True
    yield "denied", grader.write(f"not {item.answer}"), False
    yield "two labels", grader.write(f"{item.answer} or {others[0]}"), False
    yield "in a sentence, without the tag", f"So it is {item.answer}.", False


def _math(grader: Grader, item: Item) -> Replies:
    gold = item.answer
    yield "spaces and dollars in the box", grader.write(f" ${gold}$ "), True
    yield "one more", grader.write(f"{gold} + 1"), False
    yield "a box left open", f"\\boxed{{{gold}", False
    yield "in a sentence, without a box", f"So the result is {gold}.", False


def _mixed(grader: Mixed, item: Item) -> Replies:
    gold, options = item.answer, math_options(item.input)
    if len(gold) > 1 or not gold.isupper():
        yield from _value(grader, gold) if number(gold) is not None else ()
        return
    others = [letter for letter in options or "ABCD" if letter != gold]
    for letter in others:
        yield "another option", grader.write(letter), False
    for case, text in (("(B)", f"({gold})"), ("B.", f"{gold}."), ("B as text", f"\\text{{{gold}}}")):
        yield f"written as {case}", grader.write(text), True
    yield "two letters", grader.write(f"{gold} or {others[0]}"), False
    values = list(options.values())
    single = {letter: text for letter, text in options.items() if len(text) > 1 and values.count(text) == 1}
    if gold not in single:
        return
    yield "the option's text", grader.write(single[gold]), True
    yield "letter and text", grader.write(f"{gold}. {single[gold]}"), True
    for letter in [letter for letter in others if letter in single][:1]:
        yield "letter beside another option's text", grader.write(f"{gold}. {single[letter]}"), False
        yield "another option's text", grader.write(single[letter]), False


def _value(grader: Mixed, gold: str) -> Replies:
    """For an answer that is a plain number."""
    yield "sign turned", grader.write(gold.removeprefix("-") if gold.startswith("-") else f"-{gold}"), not number(gold)
    yield "ten times", grader.write(f"10 \\times {gold}"), not number(gold)
    yield "with a unit", grader.write(f"{gold}\\text{{ cm}}"), True
    yield "a letter", grader.write("B"), False
    if grader.rounded and "." in gold:
        yield "a decimal more", grader.write(f"{gold}3"), True
        yield "a decimal more, rounded elsewhere", grader.write(f"{gold}7"), False
    if grader.tolerance:
        value = float(gold) if "/" not in gold else float(Fraction(gold))
        yield "within the tolerance", grader.write(f"{value + 0.9 * grader.tolerance:.6f}"), True
        yield "beyond the tolerance", grader.write(f"{value + 1.1 * grader.tolerance:.6f}"), False


def _text(grader: Text | Span, item: Item) -> Replies:
    gold = item.answer
    strict = not isinstance(grader, Text) or grader.f1 == 1
    if isinstance(grader, Text):
        yield "in capitals, with a full stop", grader.write(f"{gold.upper()}."), True
    yield "denied", grader.write(f"not {gold}"), False if strict else None
    yield "in other words", grader.write(f"something like {gold}"), None


def _items(grader: List | Set, item: Item) -> Replies:
    items = json.loads(item.answer)
    yield "one item twice", grader.write(json.dumps([*items, items[0]])), isinstance(grader, Set)
    if len(items) > 1 and not grader.item.same(items[0], items[-1]):
        yield "the last item left out", grader.write(json.dumps(items[:-1])), None if len(items) > 2 else False
        yield "in another order", grader.write(json.dumps(items[::-1])), isinstance(grader, Set)


def _json(grader: Grader, item: Item) -> Replies:
    fields = json.loads(item.answer)
    first = next(iter(fields))
    yield "fields in another order", grader.write(json.dumps(dict(reversed(fields.items())))), True
    shorn = {name: value for name, value in fields.items() if name != first}
    yield "a field left out", f"<answer>{json.dumps(shorn)}</answer>", False
    yield "a field too many", f"<answer>{json.dumps({**fields, 'near_miss': 1})}</answer>", False
    yield "not closed", f"<answer>{item.answer[:-1]}</answer>", False


def _sql(grader: Grader, item: Item) -> Replies:
    yield "with a semicolon", grader.write(f"{item.answer.rstrip(';')};"), True
    yield "another result", grader.write("SELECT 'near miss', 'near miss'"), False
    yield "a statement that writes", grader.write("CREATE TABLE near_miss (x INTEGER)"), False
    yield "two statements", grader.write(f"{item.answer}; SELECT 1"), False
    yield "no query", grader.write("the rows that are asked for"), False


def _code(grader: Grader, item: Item) -> Replies:
    program = grader.write(item.answer).removesuffix("```")
    yield "right program, then an error", f"{program}raise ValueError('near miss')\n```", False
    yield "a program that leaves early", grader.write("import os\nos._exit(0)"), False


MAKERS: tuple[tuple[type[Grader] | tuple[type[Grader], ...], Callable[[Any, Item], Replies]], ...] = (
    (Number, _number),
    (Choice, _choice),
    (Label, _label),
    (Math, _math),
    (Mixed, _mixed),
    ((Text, Span), _text),
    ((List, Set), _items),
    (Json, _json),
    (Sql, _sql),
    (Code, _code),
)
"""Answer kind -> its own near misses; a kind of the user's gets those of every kind."""
