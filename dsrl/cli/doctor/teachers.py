"""The teachers in conf/teacher, what a chosen one needs, and one tiny paid request to it (`live=true`)."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dsrl.cli.doctor.finding import Finding
from dsrl.core.errors import UserError
from dsrl.core.resources import home

if TYPE_CHECKING:
    from dsrl.llm import Endpoint
    from dsrl.llm.completions import Completions

QUESTION = 'Write a short question about apples, and its answer. Reply with JSON: {"input": "...", "output": "..."}'
MAX_TOKENS = 2000
MAX_SHOWN = 120


class LiveSample(BaseModel):
    """The structured output that the live request asks for, as a run would."""

    input: str
    output: str


def list_teachers(config_dirs: list[Path]) -> Iterator[Finding]:
    """Each teacher: is its key set, and was it ever tried?"""
    folders = (home() / "conf", *config_dirs)
    for path in (path for folder in folders for path in sorted(folder.glob("teacher/[!_]*.yaml"))):
        values = _read_teacher(path)
        variable = values.get("api_key_env")
        is_set = variable is None or bool(os.environ.get(variable, "").strip())
        key = "no key needed" if variable is None else f"{variable} is {'set' if is_set else 'not set'}"
        if "dsrl.quickstart" in str((values.get("server") or {}).get("_target_")):
            tried = "part of dsrl"
        else:
            tried = f"tried live on {values['tried']}" if values.get("tried") else "never tried live"
        yield Finding("ok" if is_set else "-", path.stem, f"{key}; {tried}")


def _read_teacher(path: Path) -> dict[str, Any]:
    """The values of a teacher's file, over those of the files in its `defaults`."""
    import yaml

    try:
        own: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML", got=str(error).replace("\n", " ")) from error
    merged: dict[str, Any] = {}
    for name in own.get("defaults", ()):
        places = (path.parent / f"{name}.yaml", home() / "conf" / "teacher" / f"{name}.yaml")
        file = next((place for place in places if isinstance(name, str) and place.is_file()), None)
        if file is not None and file != path:
            merged |= _read_teacher(file)
    return {**merged, **own}


def check_teacher(node: dict[str, Any], live: bool) -> Iterator[Finding]:
    """What the chosen teacher needs; with `live`, also what it answers to one request."""
    from dsrl.pipeline.config import build

    try:
        endpoint: Endpoint = build(node, "teacher")
        endpoint.check()
    except UserError as error:
        yield Finding("!!", "settings", str(error))
        return
    address = endpoint.base_url or ("a server that the run starts" if endpoint.server else "OpenAI's public address")
    yield Finding("ok", "settings", f"{endpoint.model} at {address}")
    price = endpoint.price
    if price is None:
        yield Finding("-", "price", "unknown")
    else:
        text = f"${price.input:g} in, ${price.output:g} out per million tokens ({price.date})"
        yield Finding("ok", "price", text)
    if endpoint.tried:
        yield Finding("ok", "tried live", endpoint.tried)
    else:
        yield Finding("-", "tried live", "never; live=true sends one tiny request")
    if live:
        yield from try_live(endpoint)


def try_live(endpoint: "Endpoint") -> Iterator[Finding]:
    """Send one request as a run would: two completions if `takes_n`, structured output, a seed if `takes_seed`."""
    from dsrl.llm.failures import CallError

    body = live_request(endpoint)
    try:
        completions, seconds = asyncio.run(_send(endpoint, body))
    except CallError as failure:
        yield Finding("!!", "live", f"{failure.kind}: {failure}")
        return
    except UserError as error:
        yield Finding("!!", "live", str(error))
        return
    yield Finding("ok", "live", f"{completions.model or 'the model'} answered in {seconds:.1f} s")
    findings = list(_check_answer(endpoint, body, completions))
    yield from findings
    if all(finding.mark == "ok" for finding in findings):
        yield Finding("ok", "next", f'write `tried: "{time.strftime("%Y-%m-%d")}"` into its file in conf/teacher')


def live_request(endpoint: "Endpoint") -> dict[str, Any]:
    """The JSON body that is sent."""
    limit = min(endpoint.max_tokens, MAX_TOKENS)
    call = endpoint.call(endpoint.request([{"role": "user", "content": QUESTION}], LiveSample, max_tokens=limit))
    body = {**call.body, **({"n": 2} if endpoint.takes_n else {})}
    return {**body, **({"seed": call.seed(0)} if endpoint.takes_seed else {})}


async def _send(endpoint: "Endpoint", body: dict[str, Any]) -> "tuple[Completions, float]":
    """The completions and the seconds until they came."""
    from dsrl.llm import Servers
    from dsrl.llm.http import HttpTransport

    with Servers() as servers:
        wire = HttpTransport(endpoint, await asyncio.to_thread(servers.url, endpoint))
        try:
            start = time.monotonic()
            return await wire.send(body), time.monotonic() - start
        finally:
            await wire.close()


def _check_answer(endpoint: "Endpoint", body: dict[str, Any], completions: "Completions") -> Iterator[Finding]:
    from dsrl.llm.structured.parse import UnusableError, parse_object

    count, requested = len(completions.choices), body.get("n", 1)
    if endpoint.takes_seed:
        yield Finding("ok", "seed", "accepted")
    if endpoint.takes_n and count != requested:
        yield Finding("!!", "n", f"{count} completions instead of {requested}: set takes_n=false")
    elif endpoint.takes_n:
        yield Finding("ok", "n", "accepted")
    message = completions.choices[0].message
    if message.refusal is not None:
        text = f"unknown: the model refuses the question: {message.refusal[:MAX_SHOWN]}"
        yield Finding("-", "object", text)
    else:
        try:
            parse_object(message.content or "", LiveSample)
            yield Finding("ok", "object", f"came with json_mode={endpoint.json_mode}")
        except UnusableError as error:
            text = f"requested with json_mode={endpoint.json_mode}, but {error.kind}: {error}"
            yield Finding("!!", "object", text)
    usage = completions.billed
    if usage is None:
        yield Finding("!!", "tokens", "the reply does not report usage: costs will be unknown")
    else:
        cost = f"${endpoint.price.cost(usage):.6f}" if endpoint.price else "no price known"
        yield Finding("ok", "tokens", f"{usage.input_tokens} in, {usage.output_tokens} out: {cost}")
