"""Runs a program that ends with the process that started it, even if that one is killed.

`python keeper.py PROGRAM ARGUMENT ...`, with a pipe as its standard input: it closes when the parent is gone.
"""

import os
import signal
import subprocess
import sys
from threading import Thread

PATIENCE = 8.0
"""Seconds in which the program may end by itself. Less than a parent waits for this process."""


def main() -> int:
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    Thread(target=_end_with_input, args=[program], daemon=True).start()
    return program.wait()


def _end_with_input(program: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    program.terminate()
    try:
        program.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        program.kill()
    os.killpg(0, signal.SIGKILL)  # whatever the program has started, and ourselves


if __name__ == "__main__":
    sys.exit(main())
