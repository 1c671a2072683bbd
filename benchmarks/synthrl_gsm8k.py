"""SynthRL on all of GSM8K's training questions, killed in the middle and resumed.

    python benchmarks/synthrl_gsm8k.py --data FOLDER [--seeds 7473]

`--data` holds gsm8k_train.jsonl and gsm8k_test.jsonl. Questions, answers, test set, pipeline, HTTP and store are real.
Writer, judge and target model are NOT: a program that answers over HTTP plays them, and says nothing about models. It
solves a question with a probability of that question's own (half of them 0.75 and more), a rewritten one with 0.1 to
0.4 less; the writer adds a clause that cancels itself out, and at times repeats the question, gives the answer away,
breaks off or fails with an HTTP error. So what is shown: what the stages do with 7,473 labelled questions, how fast,
and that a kill loses nothing and changes nothing.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp import web

CLAUSE = " Before the end, {count} more are added by mistake, and the same {count} are taken away again."
QUESTION = re.compile(r"# Question to make harder\n(?P<text>[\s\S]*?)\n\n# What to do")
MARK = "are added by mistake"
PORT = 8917


def share(*parts: object) -> float:
    """A number in [0, 1) from the hash of the parts."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12], 16) / 16**12


class Cast:
    """A server that is writer, judge and target model."""

    def __init__(self, data: Path) -> None:
        tables = [data / f"gsm8k_{half}.jsonl" for half in ("train", "test")]
        rows = [json.loads(line) for table in tables for line in table.read_text(encoding="utf-8").splitlines()]
        self.answers = {row["question"].strip(): row["answer"].rpartition("####")[2].strip() for row in rows}

    async def reply(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt, seed = body["messages"][-1]["content"], body.get("seed", 0)
        if share("fails", prompt, seed, time.monotonic()) < 0.01:
            return web.json_response({"error": {"message": "busy"}}, status=503, headers={"Retry-After": "0.05"})
        texts = [self.says(prompt, seed + index) for index in range(body.get("n", 1))]
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": sum(map(len, texts)) // 4}
        return web.json_response({"model": "played", "choices": choices, "usage": usage})

    def says(self, prompt: str, seed: int) -> str:
        if found := QUESTION.search(prompt):
            return self.writes(found["text"].strip(), seed)
        if "# Rewritten question" in prompt:
            return json.dumps({"score": 9 if share("judge", prompt) < 0.9 else 3, "reason": "so it seems"})
        return self.solves(prompt.partition("\n\n")[0].strip(), seed)

    def writes(self, question: str, seed: int) -> str:
        drawn = share("write", question, seed)
        if drawn < 0.05:
            return json.dumps({"question": question})
        if drawn < 0.1:
            return json.dumps({"question": f"{question} The answer is {self.answers.get(question, '0')}."})
        if drawn < 0.13:
            return '{"question": "' + question[:40]
        head, _, asked = question.rpartition(". ")
        clause = CLAUSE.format(count=2 + int(8 * drawn))
        return json.dumps({"question": f"{head}.{clause} {asked}" if head else f"{question}{clause}"})

    def solves(self, question: str, seed: int) -> str:
        plain = re.sub(
            r" Before the end, \d+ more are added by mistake, and the same \d+ are taken away again\.", "", question
        )
        able = 1 - (1 - share("able", plain)) ** 1.6 * 0.8
        if MARK in question:
            able -= 0.1 + 0.3 * share("harder", question)
        answer = self.answers.get(plain.strip(), "0")
        return (
            f"#### {answer if share('solve', question, seed) < able else 1 + int(100 * share('slip', question, seed))}"
        )


def play(data: Path) -> None:
    """Run the server until it is killed."""
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", Cast(data).reply)
    web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None)


def command(data: Path, folder: Path, seeds: int) -> list[str]:
    url = f"http://127.0.0.1:{PORT}/v1"
    gold, test = data / "gsm8k_train.jsonl", data / "gsm8k_test.jsonl"
    return [
        *(sys.executable, "-m", "dsrl", "pipeline=synthrl", "task=gsm8k", f"task.gold.path={gold}"),
        *(f"task.test.path={test}", "teacher=server", "teacher.model=played-writer", f"teacher.base_url={url}"),
        *("model=server", "model.name=played-target", "rollout=server", f"rollout.endpoint.base_url={url}"),
        *("train=none", f"seeds.size={seeds}", "m=8000", "evaluate_base.samples_per_item=1", f"store={folder}/store"),
        *(
            "tracking.enabled=false",
            f"hydra.run.dir={folder}/run",
            "rollout.endpoint.backoff=0.05",
            "teacher.backoff=0.05",
        ),
    ]


def digests(folder: Path) -> dict[str, str]:
    """Digest of everything that stages have stored."""
    files = sorted(path for path in (folder / "store" / "stages").rglob("*.parquet"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "report" not in path.parts
    }


def run(data: Path, folder: Path, seeds: int, kill_after: float | None = None) -> float:
    """Run and return the seconds it took. `kill_after`: kill it after so many seconds."""
    started = time.monotonic()
    process = subprocess.Popen(command(data, folder, seeds), start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(kill_after)
        assert code == 0, f"ended with {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return time.monotonic() - started


def print_summary(folder: Path) -> None:
    metrics: dict[str, Any] = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    for stage in ("seeds", "score", "rewrite", "decontaminate", "select"):
        rows, seconds = metrics["rows"][stage], metrics["seconds"][stage]
        print(f"| {stage} | {rows['in']} | {rows['out']} | {json.dumps(rows.get('rejected', {}))} | {seconds:.1f} |")
    names = ("requests", "completions", "store_hits")
    print(json.dumps({role: {name: row[name] for name in names} for role, row in metrics["calls"].items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=7473)
    parser.add_argument("--kill-after", type=float, default=20.0, help="seconds")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    if arguments.play:
        asyncio.set_event_loop(asyncio.new_event_loop())
        return play(data)
    server = subprocess.Popen([sys.executable, __file__, "--data", str(data), "--play"])
    try:
        time.sleep(2)
        with tempfile.TemporaryDirectory() as scratch:
            whole, broken = Path(scratch) / "whole", Path(scratch) / "broken"
            seconds = run(data, whole, arguments.seeds)
            print(f"\n| stage | in | out | rejected | s |\n|---|---|---|---|---|   ({seconds:.0f} s in all)")
            print_summary(whole)
            run(data, broken, arguments.seeds, arguments.kill_after)
            left = run(data, broken, arguments.seeds)
            print(f"killed after {arguments.kill_after:g} s, the rest took {left:.0f} s")
            print_summary(broken)
            one, other = digests(whole), digests(broken)
            print(f"{len(one)} tables, {sum(one[name] == other.get(name) for name in one)} of them equal byte for byte")
    finally:
        server.kill()
    return None


if __name__ == "__main__":
    main()
