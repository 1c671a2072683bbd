import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from dsrl.core.signals import handle_termination, interrupted_code


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_taken_for_ctrl_c_and_told_from_it_by_the_exit_code() -> None:
    handle_termination()
    assert interrupted_code() == 130
    with pytest.raises(KeyboardInterrupt):
        terminated()
    assert interrupted_code() == 143


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_an_event_loop_ends_in_order(ctrl_c: Any) -> None:
    """What came home after the signal is kept, whether a shell has switched Ctrl-C off or not."""
    signal.signal(signal.SIGINT, ctrl_c)
    handle_termination()
    came: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(terminated)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            came.append("a reply")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert came == ["a reply"]
    assert interrupted_code() == 143


@pytest.mark.parametrize("theirs", [signal.SIG_IGN, lambda number, frame: None])
def test_what_somebody_else_wants_of_sigterm_stays(theirs: Any) -> None:
    signal.signal(signal.SIGTERM, theirs)
    handle_termination()
    assert signal.getsignal(signal.SIGTERM) is theirs
    assert interrupted_code() == 130
