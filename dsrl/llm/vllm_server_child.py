"""Run a program that stops when the process that started it is gone, even after `kill -9`.

`python vllm_server_child.py PROGRAM ARGUMENT ...`, with a pipe as standard input: it closes with the parent.
"""

import os
import signal
import subprocess
import sys
from threading import Thread

GRACE_SECONDS = 8.0
"""Time for the program to exit by itself; shorter than the time a parent waits for this process."""


def main() -> int:
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    Thread(target=stop_with_parent, args=[program], daemon=True).start()
    return program.wait()


def stop_with_parent(program: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    program.terminate()
    try:
        program.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()
    os.killpg(0, signal.SIGKILL)  # all processes that the program started, and this one


if __name__ == "__main__":
    sys.exit(main())
