"""Pass rates with dsrl's `rollout=vllm` compared with plain vLLM on the same requests, without start-up.

    python benchmarks/rollout.py [--vllm PROGRAM] [--model FOLDER] [--prompts 500] [--rollouts 16] [--passes 3]
                                 [--max-tokens 48] [--flag NAME=JSON ...] [--profile FILE]
                                 [--out FILE.json] [--keep FOLDER]

dsrl: the real `score` stage, with `vllm serve`, HTTP, reply cache and grading. Plain: vLLM in one process, without any
grading (`peers/offline.py`). Both engines are up, and take turns. The model is the quickstart's, unless a folder of one
that is asked in plain text is given. Prints Markdown.
"""

import argparse
import asyncio
import cProfile
import io
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dsrl.core.component import component
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Sample, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint, ReplyCache
from dsrl.llm.servers import has_gpu
from dsrl.models.rollout import ServerRollout, VllmRollout
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store
from dsrl.quickstart import Pretrain
from dsrl.quickstart.stories import LEVELS, draw
from dsrl.stages.score import Score

OFFLINE = Path(__file__).parent / "peers" / "offline.py"
WORDS = 128
"""Length of a question to models other than the quickstart's."""
Table = tuple[str, list[str], list[list[str]]]


@component("tests.rollout.Served")
class Served(Rollout):
    """The part of `VllmRollout` after its server is up."""

    endpoint: Endpoint

    def generate(
        self, model: Model, prompts: Sequence[str], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        del model  # the endpoint names it
        return asyncio.run(ServerRollout(endpoint=self.endpoint).request_replies(prompts, sampling, count, context))


@dataclass(frozen=True)
class Pass:
    """Result of scoring all samples once."""

    seconds: float
    tokens: int
    replies: int
    own: float | None = None
    """CPU seconds of dsrl's own process."""


def main() -> None:
    given = arguments()
    base, task, samples = material(given)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(keep, folder, given.keep)
        ask = offline(given, base, task, samples, folder, stack)
        score = served(given, base, folder, stack)
        scoring(score, base, task, samples[:8], folder / "warm")
        plain, ours = [], []
        for number in range(given.passes):
            plain.append(Pass(**ask(1000 * number)))
            ours.append(scoring(score, base, task, samples, folder / str(number)))
        if given.profile:
            profile = cProfile.Profile()
            profile.runcall(scoring, score, base, task, samples, folder / "profile")
            profile.dump_stats(given.profile)
    report(given, plain, ours)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", default=os.environ.get("DSRL_VLLM", "vllm"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--flag", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the logs of both engines")
    given = parser.parse_args()
    pairs = (flag.partition("=") for flag in given.flag)
    given.flags = {name: json.loads(value) for name, _, value in pairs}
    return given


def material(given: argparse.Namespace) -> tuple[Model, Task, list[Sample]]:
    """The model and its questions."""
    task = Task(name="t", instruction="count", answer=Number(marker="####"))
    if given.model is None:
        base = Model(name="quickstart", prepare=Pretrain(), max_length=256, dtype=given.dtype).locate()
        pairs = stories(given.prompts)
    else:
        base = Model(name="m", path=str(given.model), prompt_format="raw", max_length=2048, dtype=given.dtype).locate()
        words = range(WORDS)
        pairs = [
            (" ".join(f"w{2 * (7 * number + 3 * place) + 2}" for place in words), "1")
            for number in range(given.prompts)
        ]
    return base, task, [new_sample("t", question, answer, "initial") for question, answer in pairs]


def stories(count: int) -> list[tuple[str, str]]:
    rng, found = random.Random(0), {}
    while len(found) < count:
        told = draw(rng, LEVELS[len(found) % len(LEVELS)])
        found[told.text] = str(told.answer)
    return list(found.items())


def offline(
    given: argparse.Namespace, base: Model, task: Task, samples: Sequence[Sample], folder: Path, stack: ExitStack
) -> Callable[[int], dict[str, Any]]:
    """Sample all replies with plain vLLM, by seed."""
    engine: dict[str, Any] = {"dtype": base.dtype, "max_model_len": base.max_length, "generation_config": "vllm"}
    if not has_gpu():
        engine["enable_chunked_prefill"] = False  # as on the server
    settings = {
        "model": base.path,
        "engine": {**engine, **{name.replace("-", "_"): value for name, value in given.flags.items()}},
        "raw": base.prompt_format == "raw",
        "prompts": [task.prompt(sample.input) for sample in samples],
        "rollouts": given.rollouts,
        "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": given.max_tokens},
    }
    (folder / "offline.json").write_text(json.dumps(settings), encoding="utf-8")
    python = Path(shutil.which(given.vllm) or given.vllm).parent / "python"
    log = stack.enter_context((folder / "offline.log").open("w"))
    process = stack.enter_context(
        subprocess.Popen(
            [str(python), str(OFFLINE), str(folder / "offline.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.stdin.close)
    lines, answers = process.stdin, process.stdout
    if not answers.readline():
        raise SystemExit("plain vLLM did not start:\n" + (folder / "offline.log").read_text()[-3000:])

    def ask(seed: int) -> dict[str, Any]:
        lines.write(f"{seed}\n")
        lines.flush()
        found: dict[str, Any] = json.loads(answers.readline())
        return found

    return ask


def served(given: argparse.Namespace, base: Model, folder: Path, stack: ExitStack) -> Score:
    """The stage with its own server."""
    flags = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in given.flags.items()}
    rollout = VllmRollout(command=given.vllm, args=flags, log=str(folder / "vllm.log"))
    endpoint = rollout._endpoint(base)
    running = rollout._server(base, endpoint.model).start()
    stack.callback(running.stop)
    drawn = Served(endpoint=replace(endpoint, base_url=running.url))
    return Score(rollout=drawn, rollouts=given.rollouts, temperature=1.0, max_tokens=given.max_tokens)


def scoring(score: Score, base: Model, task: Task, samples: Sequence[Sample], folder: Path) -> Pass:
    """Score with dsrl, with an empty store."""
    (folder / "scratch").mkdir(parents=True)
    context = Context(
        run_dir=folder / "run",
        store=Store(folder / "store"),
        reply_cache=ReplyCache(folder / "calls"),
        progress=Progress(io.StringIO()),
        stage="score",
        scratch=folder / "scratch",
    )
    began, used = time.perf_counter(), cpu()
    after = score(PipelineState(task=task, base=base, samples=tuple(samples)), context)
    seconds, own = time.perf_counter() - began, cpu() - used
    counted = context.ledger.of("score")["model"]
    context.close()
    assert after.figures["num_error"] == 0
    return Pass(seconds, counted["output_tokens"], counted["completions"], own)


def keep(folder: Path, place: Path | None) -> None:
    """Print the logs of an engine that didn't start."""
    for log in folder.glob("*.log") if place else ():
        shutil.copy(log, place / log.name)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(given: argparse.Namespace, plain: list[Pass], ours: list[Pass]) -> None:
    """Medians over passes. The ratio is the median of the ratios of neighbouring passes."""
    rows = [row("vLLM alone", plain, plain), row("dsrl, rollout=vllm", ours, plain)]
    head = ["", "seconds", "tokens/s", "CPU s of dsrl", "time / vLLM alone", "lowest and highest"]
    show((f"{given.prompts} questions, {given.rollouts} replies each, {given.passes} passes", head, rows))
    if given.out:
        found = {"plain": [asdict(one) for one in plain], "dsrl": [asdict(one) for one in ours]}
        given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def row(name: str, passes: list[Pass], plain: list[Pass]) -> list[str]:
    # replies differ between passes, so times are per token
    ratios = [(one.seconds / one.tokens) / (two.seconds / two.tokens) for one, two in zip(passes, plain, strict=True)]
    own = [one.own for one in passes if one.own is not None]
    return [
        name,
        f"{statistics.median(one.seconds for one in passes):.2f}",
        f"{statistics.median(one.tokens / one.seconds for one in passes):,.0f}",
        f"{statistics.median(own):.2f}" if own else "",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
    ]


def show(table: Table) -> None:
    title, head, rows = table
    print(f"\n{title}\n")
    for line in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
