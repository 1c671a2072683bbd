"""The lines of batch files: requests that go up, results that come down."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dsrl.llm.completions import LONGEST_MESSAGE, Completions, read_completions
from dsrl.llm.failures import CallError, refused

ENDPOINT = "/v1/chat/completions"


log = logging.getLogger(__name__)


def encode_request(name: str, body: Mapping[str, Any]) -> bytes:
    """One line of the file that is uploaded."""
    line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def answers(path: Path) -> Iterator[tuple[str, int, int]]:
    """(custom id, offset, length) of the lines of a result file; what is no such line is said and passed over.

    Of several lines with one id the first counts.
    """
    seen: set[str] = set()
    offset = damaged = 0
    for line in _lines(path):
        name = _custom_id(line)
        if name is None:
            damaged += 1
        elif name not in seen:
            seen.add(name)
            yield name, offset, len(line)
        offset += len(line)
    if damaged:
        log.warning("%s: %d lines can't be read; their requests count as unanswered", path, damaged)


def _lines(path: Path) -> Iterable[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _custom_id(line: bytes) -> str | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = value.get("custom_id") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def result(line: bytes) -> Completions | CallError:
    """What a line says about its request, errors as if they had come over HTTP."""
    value = json.loads(line)
    response, error = _mapping(value.get("response")), _mapping(value.get("error"))
    body = response.get("body")
    status = response.get("status_code")
    if error and not response:
        return _failure(error)
    if isinstance(status, int) and status >= 400:
        said = _mapping(body).get("error", body)
        code, message = _code(said), str(_mapping(said).get("message", said))
        return refused(status, code, message[:LONGEST_MESSAGE], {})
    try:
        return read_completions(json.dumps(body).encode())
    except CallError as failure:
        return failure


def _failure(error: Mapping[str, Any]) -> CallError:
    code, message = _code(error), str(error.get("message", error))[:LONGEST_MESSAGE]
    status = error.get("status_code")
    return refused(status, code, message, {}) if isinstance(status, int) else CallError("server", f"{code}: {message}")


def _code(error: object) -> str:
    error = _mapping(error)
    return str(error.get("code") or error.get("type") or "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
