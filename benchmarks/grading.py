"""Graded replies per second, and agreement with other graders, on real solutions.

    python benchmarks/grading.py --data FOLDER [--verl SITE_PACKAGES/verl] [--math-verify CHECKOUT] [--clock cpu]

`--data` holds gsm8k_{train,test}.jsonl, logiqa_test.txt and minerva_math_test.jsonl. `--verl` is the folder of veRL's
package, whose scorers are loaded as single files; `--math-verify` a checkout of its repository, whose tests' tables of
(gold, prediction, expected) are put to our grader. Prints Markdown. Times are the best of the repeats: wall clock, or
on a busy machine the CPU seconds of this process and its workers (Linux).
"""

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from dsrl.graders import Choice, Math, Number
from dsrl.graders import math as ours
from dsrl.graders.latex import settle
from dsrl.graders.worker_pool import WorkerPool, pool

Pairs = list[tuple[str, str]]
"""(reply, gold answer)"""


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def number_pairs(data: Path) -> Pairs:
    """Every GSM8K solution with its own gold answer and with that of another problem."""
    replies = [row["answer"] for part in ("train", "test") for row in lines(data / f"gsm8k_{part}.jsonl")]
    golds = [str(Number().gold(reply)) for reply in replies]
    shuffled = random.Random(0).sample(golds, len(golds))
    return [*zip(replies, golds, strict=True), *zip(replies, shuffled, strict=True)]


def choice_pairs(data: Path) -> Pairs:
    """LogiQA's context as reasoning, followed by each letter in turn."""
    rows = (data / "logiqa_test.txt").read_text(encoding="utf-8").splitlines()
    records = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    return [
        (f"{record[2]}\n<answer>{letter}</answer>", record[1].strip().upper())
        for record in records
        for letter in "ABCD"
    ]


def boxed_pairs(data: Path) -> Pairs:
    """Every Minerva solution with its own gold answer and with that of the next problem."""
    replies = [row["solution"] for row in lines(data / "minerva_math_test.jsonl")]
    golds = [str(Math().gold(reply)) for reply in replies]
    return [(reply, golds[(i + step) % len(golds)]) for step in range(2) for i, reply in enumerate(replies)]


def best(repeat: int, run: Callable[[], list[bool]], before: Callable[[], object] = int) -> tuple[float, list[bool]]:
    """The shortest time and the verdicts."""
    seconds, verdicts = [], []
    for _ in range(repeat):
        before()
        started = CLOCK()
        verdicts = run()
        seconds.append(CLOCK() - started)
    return min(seconds), verdicts


def cpu() -> float:
    """CPU seconds of this process and its living children."""
    spent = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has just ended
            fields = path.read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) * (int(fields[1]) == os.getpid())
    return time.process_time() + spent / os.sysconf("SC_CLK_TCK")


CLOCK: Callable[[], float] = time.perf_counter


def scorer(folder: Path, name: str) -> ModuleType:
    """One file of veRL's scorers, without importing veRL."""
    spec = importlib.util.spec_from_file_location(name, folder / "utils" / "reward_score" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def direct(pairs: Pairs) -> list[bool]:
    """math-verify as in its README, in this process, without timeouts."""
    import logging

    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold = {answer: parse(f"\\boxed{{{answer}}}", parsing_timeout=None) for answer in {answer for _, answer in pairs}}
    return [
        bool(verify(gold[answer], parse(reply, parsing_timeout=None), timeout_seconds=None)) for reply, answer in pairs
    ]


def forget() -> None:
    """Clear the caches of our grader, our workers and sympy."""
    from sympy.core.cache import clear_cache

    ours._verdicts.clear()
    pool(ours_module()).close()
    clear_cache()
    pool(ours_module()).ask([["x+1", "1+x"]], 5.0)


def ours_module() -> str:
    return "dsrl.graders.math_worker"


def row(name: str, count: int, seconds: float, ours_: list[bool], theirs: list[bool]) -> str:
    same = sum(one == other for one, other in zip(ours_, theirs, strict=True))
    return f"| {name} | {count} | {count / seconds:,.0f} | {sum(theirs)} | {same / count:.2%} |"


def table(title: str) -> None:
    print(f"\n## {title}\n\n| grader | replies | per second | right | agrees with ours |\n|---|---|---|---|---|")


def numbers(arguments: argparse.Namespace) -> None:
    """Our grader and veRL's on the same replies."""
    table("number: GSM8K")
    pairs = number_pairs(arguments.data)
    seconds, mine = best(arguments.repeat, lambda: [grade.correct for grade in Number().grade_many(pairs)])
    print(row("dsrl number", len(pairs), seconds, mine, mine))
    if arguments.verl:
        gsm8k = scorer(arguments.verl, "gsm8k")
        seconds, theirs = best(arguments.repeat, lambda: [gsm8k.compute_score(*pair) == 1 for pair in pairs])
        print(row("veRL gsm8k, strict", len(pairs), seconds, mine, theirs))


def choices(arguments: argparse.Namespace) -> None:
    table("choice: LogiQA")
    pairs = choice_pairs(arguments.data)
    seconds, mine = best(arguments.repeat, lambda: [grade.correct for grade in Choice().grade_many(pairs)])
    print(row("dsrl choice", len(pairs), seconds, mine, mine))


def boxed(arguments: argparse.Namespace) -> None:
    table("boxed: minerva, one worker")
    pool(ours_module()).max_workers = 1
    pairs = boxed_pairs(arguments.data)
    seconds, mine = best(arguments.repeat, lambda: [grade.correct for grade in Math().grade_many(pairs)], forget)
    print(row("dsrl math", len(pairs), seconds, mine, mine))
    theirs_seconds, theirs = best(arguments.repeat, lambda: direct(pairs), forget)
    print(row("math-verify itself", len(pairs), theirs_seconds, mine, theirs))
    if arguments.verl:
        scored = scorer(arguments.verl, "math_reward")
        slow, scores = best(arguments.repeat, lambda: [scored.compute_score(*pair) == 1 for pair in pairs])
        print(row("veRL math", len(pairs), slow, mine, scores))
    print(f"\nCost of ours: {seconds / theirs_seconds:.2f} times math-verify's.")
    different(pairs, mine, theirs)
    algebra(pairs, arguments.repeat)


def algebra(pairs: Pairs, repeat: int) -> None:
    """Only comparisons that need the worker pool, with the same bare expressions for both graders."""
    bare = [(str(Math().parse(reply)), answer) for reply, answer in pairs]
    bare = sorted({pair for pair in bare if isinstance(settle(*pair), tuple)})
    boxes = [(f"\\boxed{{{reply}}}", answer) for reply, answer in bare]
    seconds, mine = best(repeat, lambda: [grade.correct for grade in Math().grade_many(boxes)], forget)
    theirs_seconds, theirs = best(repeat, lambda: direct(boxes), forget)
    table("boxed, without what we settle ourselves")
    print(row("dsrl math", len(boxes), seconds, mine, mine))
    print(row("math-verify itself", len(boxes), theirs_seconds, mine, theirs))
    print(f"\nCost of ours: {seconds / theirs_seconds:.2f} times math-verify's.")


def different(pairs: Pairs, mine: list[bool], theirs: list[bool]) -> None:
    for (reply, answer), one, other in zip(pairs, mine, theirs, strict=True):
        if one != other:
            print(f"- ours {one}, math-verify {other}: reply `{Math().parse(reply)}`, gold `{answer}`")


def bombs(_arguments: argparse.Namespace) -> None:
    """A batch with a very expensive expression, compared with the same batch without it."""
    print("\n## a bomb in a batch of 200, time-out 2 s\n")
    own = WorkerPool(ours_module(), 1)
    batch = [[f"{i}x+{i}", f"{i}(x+1)"] for i in range(200)]
    own.ask(batch[:1], 2.0)
    for name, questions in (("without", batch), ("with a bomb", [*batch[:100], ["7", "9^{9^{9}}"], *batch[100:]])):
        started = time.perf_counter()
        answers = own.ask(questions, 2.0)
        seconds, right, undecided = time.perf_counter() - started, answers.count(True), answers.count(None)
        print(f"- {name}: {seconds:.2f} s, {right} right, {undecided} undecided")
    own.close()


def expectations(checkout: Path) -> Iterator[tuple[str, str, bool]]:
    """(gold, prediction, expected) from the literal tables of math-verify's tests, without those that need options."""
    for path in sorted((checkout / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Tuple)
                and len(node.elts) == 3
                and all(isinstance(x, ast.Constant) for x in node.elts)
            ):
                gold, prediction, expected = (x.value for x in node.elts if isinstance(x, ast.Constant))
                if isinstance(gold, str) and isinstance(prediction, str) and expected in (0, 1):
                    yield gold, prediction, bool(expected)


def alone(text: str) -> bool:
    """Whether a text is one expression: a single box, or nothing around its dollars."""
    bare = text.strip().strip("$")
    return text.count("\\boxed") == 1 or ("\\boxed" not in text and "$" not in bare and text.strip().startswith("$"))


def agreement(arguments: argparse.Namespace) -> None:
    """Agreement of our verdicts with those that math-verify's tests expect."""
    cases = list(expectations(arguments.math_verify)) if arguments.math_verify else []
    grader = Math()
    golds = [grader.gold(gold) or "" for gold, _, _ in cases]
    replies = [grader.gold(prediction) or "" for _, prediction, _ in cases]
    reasons = grader.compare_many(list(zip(replies, golds, strict=True)))
    agreed = [(reason == "right") is expected for reason, (_, _, expected) in zip(reasons, cases, strict=True)]
    apply = [alone(gold) and alone(prediction) for gold, prediction, _ in cases]
    applied = sum(one and two for one, two in zip(agreed, apply, strict=True))
    print(
        f"\n## math-verify's own tests\n\n{sum(agreed)} of {len(cases)} as expected there; of those with one expression"
    )
    print(f"on both sides, which is what our instruction asks for, {applied} of {sum(apply)}. The others:\n")
    for (gold, prediction, expected), reason, same in zip(cases, reasons, agreed, strict=True):
        if not same:
            print(f"- expected {WORDS[expected]}, ours {reason}: gold `{gold[-80:]!r}`, reply `{prediction[-80:]!r}`")


WORDS = {True: "right", False: "wrong"}
PARTS = {"number": numbers, "choice": choices, "boxed": boxed, "bomb": bombs, "tests": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--verl", type=Path)
    parser.add_argument("--math-verify", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    global CLOCK
    CLOCK = cpu if arguments.clock == "cpu" else time.perf_counter
    for part in arguments.only:
        PARTS[part](arguments)


if __name__ == "__main__":
    sys.exit(main())
