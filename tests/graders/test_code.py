"""Programs that models write: isolation, limits, and verdicts that no program can decide."""

from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.graders import Code
from dsrl.graders.sandbox import run

PASSES = "assert True"


def verdict(program: str, tests: str, seconds: float = 5.0) -> str:
    """Skips the test on systems that can't isolate programs."""
    try:
        return run(program, tests, seconds, 1024, require_isolation=True)
    except UserError as error:
        pytest.skip(f"no isolation here: {error}")


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(1e6)"], ids=["busy", "asleep"])
def test_a_program_that_never_ends_is_undecided(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.graders.sandbox.PATIENCE", 0.0)
    assert verdict(program, PASSES, 0.5) == "undecided"


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (
            "class S:\n    def __init__(self): self.x = []\n    def push(self, v): self.x.append(v)\n"
            "    def pop(self): return self.x.pop()\n    def __len__(self): return len(self.x)",
            "s = S()\ns.push(3)\nassert len(s) == 1 and isinstance(s, S) and s.pop() == 3 and s.x == []\n"
            "try:\n    s.pop()\n    assert False\nexcept IndexError: pass",
        ),
        (
            "class MyError(ValueError): pass\ndef f(x): raise MyError('no')",
            "try:\n    f(1)\n    raise SystemExit\nexcept MyError as error: assert str(error) == 'no'",
        ),
        ("def gen():\n    yield 1\n    yield 2", "assert list(gen()) == [1, 2] and next(gen()) == 1"),
        ("def apply(f, xs): return [f(x) for x in xs]", "assert apply(lambda x: x + 1, [1, 2]) == [2, 3]"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(): return P(1)",
            "assert f() == P(1) and f().x == 1 and f() != P(2)",
        ),
        (
            "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)",
            "assert f() == (1, 2) and f().x == 1",
        ),
        (
            "def f(): return {1: (2, {3})}, float('inf'), 2**100, b'x', None",
            "assert f() == ({1: (2, {3})}, float('inf'), 2**100, b'x', None)",
        ),
        (
            "from decimal import Decimal\ndef f(): return Decimal('1.5'), range(3)",
            "from decimal import Decimal\nassert f() == (Decimal('1.5'), range(3))",
        ),
        (
            "class V:\n    def __init__(self, x): self.x = x\n    def __mul__(self, k): return V(self.x * k)\n"
            "    def __eq__(self, other): return self.x == other.x",
            "assert V(2) * 3 == V(6)",
        ),
        ("def f(x): return x", "from solution import f as g\nimport math\nassert math.isclose(g(0.1), 0.1)"),
    ],
    ids=[
        "class",
        "exception",
        "generator",
        "callback",
        "dataclass",
        "namedtuple",
        "values",
        "decimal",
        "operator",
        "import",
    ],
)
def test_tests_use_a_program_in_another_process_as_if_it_were_theirs(program: str, tests: str) -> None:
    assert verdict(program, tests) == "right"


EQUAL = "class E:\n    def __eq__(self, other): return True\n    __lt__ = __gt__ = __contains__ = __eq__\n"


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (f"{EQUAL}def f(x): return E()", "assert f(2) == 3"),
        (f"{EQUAL}    def __sub__(self, other): return 0.0\ndef f(x): return E()", "assert abs(f(2) - 0.5) < 1e-6"),
        (f"{EQUAL}def f(x): return E()", "assert 2 < f(2) < 3"),
        (f"{EQUAL}    def __iter__(self): return iter([])\ndef f(x): return E()", "assert 3 in f(2)"),
        ("class I(int):\n    def __eq__(self, other): return True\ndef f(x): return I(7)", "assert f(2) == 3"),
        ("def f(g): return g.__globals__", "assert f(lambda: 1)"),
        (
            "import os\nfor n in range(64):\n    try: os.write(n, b'0000000006[\"ok\"]')\n    except OSError: pass",
            "f(1)",
        ),
        ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "f(1)"),
        ("import sys\nsys._getframe(1).f_locals['passed'] = True\nimport os\nos._exit(78)", "f(1)"),
    ],
    ids=["equal", "difference", "between", "member", "number", "globals", "forged", "kill", "frame"],
)
def test_no_program_decides_its_own_verdict(program: str, tests: str) -> None:
    assert verdict(program, tests) != "right"


@pytest.mark.parametrize(
    "program",
    [
        "open('/etc/passwd').read()",
        "open('/proc/1/environ').read()",
        "import os\nos.listdir('/tmp')",
        "open('/tmp/left', 'w').write('x')",
        "import socket\nsocket.create_connection(('127.0.0.1', 1), 2)\n",
        "for n in range(20_000): open(str(n), 'wb').write(b'x' * 65_536)",
        "open('big', 'wb').write(b'x' * 10**6)",
        "x = bytearray(10**10)",
        "import dsrl_no_such_module",
        "import os\nassert os.getpid() != 1",
    ],
    ids=["etc", "proc", "list", "write", "network", "files", "file", "memory", "module", "processes"],
)
def test_a_program_has_no_rights_outside_its_folder(program: str) -> None:
    assert verdict(program, PASSES) == "wrong"


def test_a_program_has_a_folder_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program = "import os\nopen('left', 'w').write('x')\nfound = 'OPENAI_API_KEY' in os.environ\nos.chmod('.', 0)"
    assert verdict(program, "assert not found") == "right"
    assert not Path("left").exists()


def test_a_system_without_isolation_is_refused_unless_the_user_accepts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Path(__file__).with_name("open_sandbox_child.py")
    monkeypatch.setattr("dsrl.graders.sandbox.CHILD", child)
    with pytest.raises(UserError, match="require_isolation"):
        Code().compare("x = 1", "# tests\nassert x == 1")
    assert Code(require_isolation=False).compare("x = 1", "# tests\nassert x == 1") == "right"
