"""The work of all clients, and their command line."""

import argparse
import json
import time
from pathlib import Path

MODEL = "fault-1"
KEY = "none"
VOTES = 16
RETRIES = 10
TIMEOUT = 120
TEMPERATURE = 0.7


def arguments() -> argparse.Namespace:
    """Command-line arguments of every client."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--folder", type=Path, required=True, help="what is kept there is found again after a crash")
    parser.add_argument("--stop", default="none", help="when a vote ends (dsrl only)")
    return parser.parse_args()


def question(number: int) -> str:
    """The prompt of item `number`."""
    return f"Invent a short counting question, number {number}."


def vote(invented: str) -> str:
    """The prompt that is answered 16 times."""
    return f"Answer the question and end with #### and the number.\n\n{invented}"


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def tell(started: float, rows: int, **more: object) -> None:
    """Print the outcome: seconds since `started` (`time.perf_counter()` after the imports) and complete rows."""
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows, **more}), flush=True)
