import os
import socket
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.graders import Code

PASSES = "# tests\nassert True"


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(1e6)"], ids=["busy", "asleep"])
def test_a_program_that_never_ends_is_undecided(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.graders.sandbox.PATIENCE", 0.0)
    assert Code(timeout=0.5).compare(program, PASSES) == "undecided"


def test_a_program_sees_no_environment_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program = "import os\nopen('left', 'w').write('x')\nfound = 'OPENAI_API_KEY' in os.environ"
    assert Code().compare(program, "# tests\nassert not found") == "right"
    assert not Path("left").exists()


def test_big_files_and_big_memory_are_refused() -> None:
    assert Code().compare("open('big', 'wb').write(b'x' * 10**6)", PASSES) == "wrong"
    assert Code(memory_mb=256).compare("x = bytearray(10**9)", PASSES) == "wrong"


def test_the_network_is_closed_or_that_it_is_not_is_said() -> None:
    """On a system without user namespaces `require_isolation` refuses to run; elsewhere loopback is out of reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)"
        try:
            reason = Code(require_isolation=True).compare(program, PASSES)
        except UserError:
            pytest.skip("this system has no network namespaces for its users")
        assert reason == "wrong"


def test_it_runs_without_the_packages_of_the_parents_folder() -> None:
    assert Code().compare("import dsrl_no_such_module", PASSES) == "wrong"
    assert Code().compare(f"import os\nplace = os.getcwd()\nassert place != {os.getcwd()!r}", PASSES) == "right"
