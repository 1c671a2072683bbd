"""A reader that goes away, as `head` does, is no error to talk about."""

import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from dsrl.core import broken_pipe
from dsrl.core.component import component
from dsrl.data.sample import new_sample
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.state import PipelineState
from tests import toys
from tests.command import ENVIRONMENT, command

TEXT = "word " * 100_000
"""More than a pipe holds."""
QUICK = ("task=quickstart", "teacher=gpt4o", "model.path=.")


@component("tests.test_broken_pipe.Long")
class Long(toys.Fetch):
    """Makes one sample."""

    name: ClassVar[str] = "generate"
    outputs = ("samples",)

    text: str = ""

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        return state.add(samples=(new_sample(state.task.name, self.text, "1", "initial"),))


def cut_off(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and errors of a `dsrl` whose output is closed before it has written any."""
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    return process.wait(), said


@pytest.mark.parametrize("arguments", [("plan", *QUICK), (*QUICK, "--cfg", "job"), ("--help",)])
def test_a_command_whose_output_is_cut_off_ends_without_a_word(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert cut_off(tmp_path, *arguments) == (broken_pipe.SIGPIPE_EXIT_CODE, "")


def test_a_long_trace_that_is_cut_off_too(tmp_path: Path) -> None:
    state = toys.state(tmp_path)
    where = toys.context(tmp_path)
    sample = new_sample(state.task.name, TEXT, "1", "initial")
    run_stages({"fetch": toys.Fetch(), "generate": Long(text=TEXT)}, state, where)
    where.close()
    assert cut_off(tmp_path, "trace", sample.id) == (broken_pipe.SIGPIPE_EXIT_CODE, "")


def test_another_broken_pipe_is_an_error() -> None:
    with pytest.raises(BrokenPipeError, match="a worker"):
        broken_pipe.exit_quietly(BrokenPipeError("a worker"))
