"""`python -m dsrl.graders.worker MODULE`: answers questions with the module's `answer` until its input closes."""

import importlib
import json
import queue
import resource
import signal
import sys

from dsrl.core.child_process import end_with_parent

MEMORY_BYTES = 4 << 30


def main() -> None:
    """Read lines `[CPU seconds, [question, ...]]`; write one line per question.

    The kernel ends the process when a question has used up its CPU seconds, whatever C code it is in: the timer's
    signal keeps its default action, so no Python code has to run for it.
    """
    answer = importlib.import_module(sys.argv[1]).answer
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    end_with_parent(sys.stdin, lines.put)
    print("ready", flush=True)
    while True:
        seconds, questions = json.loads(lines.get())
        for question in questions:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            reply = json.dumps(answer(question))
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(reply, flush=True)


if __name__ == "__main__":
    main()
