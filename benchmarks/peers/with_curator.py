"""Bespoke Curator: two blocks, the second of which requests 16 answers at once."""

import importlib.util
import os
import time
from pathlib import Path


def offline() -> None:
    """Disable telemetry, viewer and display; use litellm's copy of the tokenizer table."""
    found = importlib.util.find_spec("litellm")
    tables = Path(found.submodule_search_locations[0]) / "litellm_core_utils" / "tokenizers"
    quiet = {
        "TELEMETRY_ENABLED": "false",
        "CURATOR_VIEWER": "0",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "TIKTOKEN_CACHE_DIR": str(tables),
        "OPENAI_API_KEY": "none",
    }
    os.environ.update(quiet)


offline()

import common  # noqa: E402
from bespokelabs import curator  # noqa: E402


class Invent(curator.LLM):
    def prompt(self, row: dict) -> str:
        return row["prompt"]

    def parse(self, row: dict, response: str) -> dict:
        return {"prompt": row["prompt"], "q": response}


class Vote(curator.LLM):
    return_completions_object = True

    def prompt(self, row: dict) -> str:
        return common.vote(row["q"])

    def parse(self, row: dict, response: dict) -> dict:
        return {"q": row["q"], "votes": [choice["message"]["content"] for choice in response["choices"]]}


def block(kind: type, asked, **generation):
    settings = {
        "base_url": asked.url,
        "max_retries": common.RETRIES,
        "require_all_responses": False,
        "max_concurrent_requests": asked.concurrency,
        "max_requests_per_minute": 10**7,
        "max_tokens_per_minute": 10**11,
        "request_timeout": common.TIMEOUT,
    }
    generation = {"temperature": common.TEMPERATURE, **generation}
    return kind(model_name=common.MODEL, backend="openai", backend_params=settings, generation_params=generation)


def rows(answer) -> list:
    return list(getattr(answer, "dataset", answer))


def main() -> None:
    asked = common.arguments()
    started = time.perf_counter()
    folder = str(asked.folder)
    made = rows(block(Invent, asked)([{"prompt": common.question(i)} for i in range(asked.count)], working_dir=folder))
    if asked.work == "chain":
        made = rows(block(Vote, asked, n=common.VOTES)(made, working_dir=folder))
    common.tell(started, len(made))


if __name__ == "__main__":
    main()
