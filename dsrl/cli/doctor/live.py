"""One tiny paid request that shows what an endpoint takes, for `dsrl doctor live=true`."""

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dsrl.cli.doctor.finding import Finding
from dsrl.core.errors import UserError
from dsrl.llm.structured.parse import UnusableError, parse_object

if TYPE_CHECKING:
    from dsrl.llm import Endpoint
    from dsrl.llm.completions import Completions

QUESTION = 'Write a short question about apples, and its answer. Reply with JSON: {"input": "...", "output": "..."}'
MOST_TOKENS = 2000
SHOWN = 120


class Sample(BaseModel):
    """What is asked for, in the shape that a run asks for."""

    input: str
    output: str


def attempt(endpoint: "Endpoint") -> Iterator[Finding]:
    """Sends one request as a run would: two completions where `takes_n`, an object, a seed where `takes_seed`."""
    from dsrl.llm.failures import CallError

    body = request(endpoint)
    try:
        completions, seconds = asyncio.run(_send(endpoint, body))
    except CallError as failure:
        yield Finding("!!", "live", f"{failure.kind}: {failure}")
        return
    except UserError as error:
        yield Finding("!!", "live", str(error))
        return
    yield Finding("ok", "live", f"{completions.model or 'the model'} answered in {seconds:.1f} s")
    found = [*_found(endpoint, body, completions), _cost(endpoint, completions)]
    yield from found
    if all(finding.mark == "ok" for finding in found):
        yield Finding("ok", "next", f'write `tried: "{time.strftime("%Y-%m-%d")}"` into its file in conf/teacher')


def request(endpoint: "Endpoint") -> dict[str, Any]:
    """The body that is sent."""
    limit = min(endpoint.max_tokens, MOST_TOKENS)
    call = endpoint.call(endpoint.request([{"role": "user", "content": QUESTION}], Sample, max_tokens=limit))
    asked = {**call.body, **({"n": 2} if endpoint.takes_n else {})}
    return {**asked, **({"seed": call.seed(0)} if endpoint.takes_seed else {})}


async def _send(endpoint: "Endpoint", body: dict[str, Any]) -> "tuple[Completions, float]":
    from dsrl.llm import Servers
    from dsrl.llm.http import HttpTransport

    with Servers() as servers:
        wire = HttpTransport(endpoint, await asyncio.to_thread(servers.url, endpoint))
        try:
            start = time.monotonic()
            return await wire.send(body), time.monotonic() - start
        finally:
            await wire.close()


def _found(endpoint: "Endpoint", body: dict[str, Any], completions: "Completions") -> Iterator[Finding]:
    count, asked = len(completions.choices), body.get("n", 1)
    if endpoint.takes_seed:
        yield Finding("ok", "seed", "sent, and not refused")
    if endpoint.takes_n and count != asked:
        yield Finding("!!", "n", f"{count} instead of {asked}: set takes_n=false")
    elif endpoint.takes_n:
        yield Finding("ok", "n", "taken")
    yield _object(endpoint, completions)


def _object(endpoint: "Endpoint", completions: "Completions") -> Finding:
    message = completions.choices[0].message
    if message.refusal is not None:
        return Finding("-", "object", f"not seen, the model refuses the question: {message.refusal[:SHOWN]}")
    try:
        parse_object(message.content or "", Sample)
    except UnusableError as error:
        return Finding("!!", "object", f"asked with json_mode={endpoint.json_mode}, but {error.kind}: {error}")
    return Finding("ok", "object", f"came with json_mode={endpoint.json_mode}")


def _cost(endpoint: "Endpoint", completions: "Completions") -> Finding:
    usage = completions.billed
    if usage is None:
        return Finding("!!", "tokens", "it doesn't say how many it bills: costs will be unknown")
    cost = f"${endpoint.price.cost(usage):.6f}" if endpoint.price else "no price known"
    return Finding("ok", "tokens", f"{usage.input_tokens} in, {usage.output_tokens} out: {cost}")
