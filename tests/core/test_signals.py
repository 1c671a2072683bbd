import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dsrl.core.signals import HANDLED, handle_termination, interrupted_code
from tests.command import ENVIRONMENT


@pytest.fixture(autouse=True)
def _restore_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_interrupts_like_ctrl_c_with_its_own_exit_code(number: int, code: int) -> None:
    handle_termination()
    assert interrupted_code() == 130
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert interrupted_code() == code


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_event_loop_finishes_what_is_in_flight(ctrl_c: Any) -> None:
    """A reply that arrives after the signal is kept, even if a shell has disabled Ctrl-C."""
    signal.signal(signal.SIGINT, ctrl_c)
    handle_termination()
    replies: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            replies.append("a reply")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert replies == ["a reply"]
    assert interrupted_code() == 143


@pytest.mark.parametrize("number", HANDLED)
@pytest.mark.parametrize("other", [signal.SIG_IGN, lambda number, frame: None])
def test_other_handlers_are_kept(number: int, other: Any) -> None:
    """`nohup` ignores SIGHUP."""
    signal.signal(number, other)
    handle_termination()
    assert signal.getsignal(number) is other
    assert interrupted_code() == 130


PROGRAM = """
import os, sys, time
from dsrl.core.signals import handle_termination, interrupted_code
handle_termination()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted: everything received so far is kept", flush=True)
    print("the same", file=sys.stderr, flush=True)
    sys.exit(interrupted_code())
"""


def test_closed_terminal_ends_a_program_in_order() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=ENVIRONMENT,
        preexec_fn=lambda: os.login_tty(theirs),  # makes it the controlling terminal, as ssh does
    )
    os.close(theirs)
    assert b"ready" in os.read(ours, 100)
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP
