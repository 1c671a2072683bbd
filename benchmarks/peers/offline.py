"""Plain vLLM: the same requests in one process, no server. Runs in vLLM's own environment, for `rollout.py`.

    python offline.py SETTINGS.json

Answers each line of standard input, a seed, with a line of JSON: seconds, tokens, replies.
"""

import json
import os
import sys
import time
from typing import Any

WARM = 8


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # vLLM's own output
        serve(given, answers)


def serve(given: dict[str, Any], answers: Any) -> None:
    from vllm import LLM

    model = LLM(model=given["model"], **given["engine"])
    draw(model, given, 0, given["prompts"][:WARM])
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(draw(model, given, int(line), given["prompts"])) + "\n")
        answers.flush()


def draw(model: Any, given: dict[str, Any], seed: int, prompts: list[str]) -> dict[str, Any]:
    from vllm import SamplingParams

    began = time.perf_counter()
    sampling = [
        SamplingParams(n=given["rollouts"], seed=seed + place, **given["sampling"]) for place in range(len(prompts))
    ]
    if given["raw"]:
        outputs = model.generate(prompts, sampling, use_tqdm=False)
    else:
        outputs = model.chat([[{"role": "user", "content": prompt}] for prompt in prompts], sampling, use_tqdm=False)
    texts = [[reply.text for reply in output.outputs] for output in outputs]
    seconds = time.perf_counter() - began
    tokens = sum(len(reply.token_ids) for output in outputs for reply in output.outputs)
    return {"seconds": seconds, "tokens": tokens, "replies": sum(map(len, texts))}


if __name__ == "__main__":
    main()
