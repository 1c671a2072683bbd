import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.graders import Math
from dsrl.graders.latex import boxes
from dsrl.graders.worker_pool import WorkerPool, pool
from tests.command import CHECKOUT, ENVIRONMENT

GRADER = Math()
QUICK = Math(timeout=0.5)
LATEX = "dsrl.graders.math_worker"
BOMBS = ["9^{9^{9}}", "9^{9^{9^{9}}}", "(10^{10^{8}})!"]


@pytest.mark.parametrize(
    ("reply", "box"),
    [
        (r"\boxed{a} \boxed{b}", "b"),
        (r"\boxed{\boxed{a}}", r"\boxed{a}"),
        (r"\boxed{\frac{a}{b}}", r"\frac{a}{b}"),
        (r"\boxed{\{a\}}", r"\{a\}"),
        (r"\boxed{a} \boxed{b", "a"),
        (r"\boxed{a \boxed{b}", "b"),
        (r"}} \boxed{a}}", "a"),
        (r"\boxed {a}", "a"),
        (r"\boxed{\\}", r"\\"),
        (r"\boxed{a\}", None),
        (r"\boxed a", None),
        ("", None),
    ],
)
def test_the_box_that_closes_last_is_read(reply: str, box: str | None) -> None:
    assert (boxes(reply) or [None])[-1] == box


@given(st.text(alphabet="\\boxed{}12 ", max_size=60))
def test_no_reply_whatever_breaks_the_reader(reply: str) -> None:
    parsed = GRADER.parse(reply)
    assert parsed is None or len(parsed) > 0


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_undecided_and_leaves_the_pool_healthy(bomb: str) -> None:
    pairs = [(bomb, "7"), ("x+x", "2x"), ("7", bomb), ("x+x", "3x")]
    reasons = QUICK.compare_many(pairs)
    assert reasons == ["undecided", "right", "undecided", "wrong"]
    grade = QUICK.grade(f"\\boxed{{{bomb}}}", "7")
    assert (grade.correct, grade.format_ok, grade.reason) == (False, True, "undecided")


@pytest.mark.e2e
def test_bombs_in_threads_stop_nobody_else() -> None:
    pairs = [(f"9^{{9^{{9}}}}+{i}", "7") if i % 4 == 0 else (f"x+{i}", f"{i}+x") for i in range(12)]
    with ThreadPoolExecutor(6) as threads:
        reasons = list(threads.map(lambda pair: QUICK.compare(*pair), pairs))
    assert reasons == ["undecided" if i % 4 == 0 else "right" for i in range(12)]


def test_plain_numbers_words_and_equal_spellings_never_reach_the_pool() -> None:
    code = r"""
import sys
import time
from dsrl.graders import Math
pairs = [("5", "5"), ("0.5", r"\frac{1}{2}"), ("1,234", "1234"), (r"\text{Monday}", "Tuesday"), ("x^2", "x^2")]
Math().compare_many([*pairs, (r"50\%", "0.5")])
from dsrl.graders.worker_pool import pool
print(pool("dsrl.graders.math_worker").idle.qsize(), "sympy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, cwd=CHECKOUT, capture_output=True, check=True)
    assert done.stdout.split() == [b"0", b"False"]


def test_a_worker_that_is_killed_is_replaced() -> None:
    own = WorkerPool(LATEX, 1)
    assert own.ask([["x+x", "2x"]], 5.0) == [True]
    worker = own.idle.get_nowait()
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    own.idle.put(worker)
    assert own.ask([["x+x", "2x"]], 5.0) == [True]
    own.close()


def test_many_questions_come_back_in_their_order() -> None:
    own = WorkerPool(LATEX, 2)
    answers = own.ask([[f"{i}x", f"{i}x" if i % 3 else "y"] for i in range(100)], 5.0)
    assert answers == [i % 3 != 0 for i in range(100)]
    own.close()


def test_workers_end_with_the_process_that_asked() -> None:
    code = """
import os, signal
from dsrl.graders import Math
Math().compare("x+x", "2x")
from dsrl.graders.worker_pool import pool
print(pool("dsrl.graders.math_worker").idle.queue[0].process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, cwd=CHECKOUT, capture_output=True, check=False)
    worker = int(done.stdout)
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or ") Z " in state.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


def test_one_pool_serves_the_process() -> None:
    assert pool(LATEX) is pool(LATEX)
