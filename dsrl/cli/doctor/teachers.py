"""The teachers there are, and what the chosen one needs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.doctor.finding import Finding
from dsrl.core.errors import UserError
from dsrl.core.resources import home

if TYPE_CHECKING:
    from dsrl.llm import Endpoint


def teachers(folders: list[Path]) -> Iterator[Finding]:
    """Each choice: is its key there, and was it ever tried?"""
    paths = [path for folder in (home() / "conf", *folders) for path in sorted(folder.glob("teacher/[!_]*.yaml"))]
    for path in paths:
        said = _said(path)
        variable = said.get("api_key_env")
        there = variable is None or _is_set(variable)
        key = "no key needed" if variable is None else f"{variable} is {'set' if there else 'not set'}"
        yield Finding("ok" if there else "-", path.stem, f"{key}; {_tried(said)}")


def _said(path: Path) -> dict[str, Any]:
    """What a teacher's file says, after the files that it begins with."""
    import yaml

    try:
        own: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML", got=str(error).replace("\n", " ")) from error
    places = (path.parent, home() / "conf" / "teacher")
    first = [name for name in own.get("defaults", ()) if isinstance(name, str) and name != "_self_"]
    files = [
        next((place / f"{name}.yaml" for place in places if (place / f"{name}.yaml").is_file()), None) for name in first
    ]
    said = [_said(file) for file in files if file is not None and file != path]
    return {key: value for part in (*said, own) for key, value in part.items()}


def _tried(said: dict[str, Any]) -> str:
    if "dsrl.quickstart" in str((said.get("server") or {}).get("_target_")):
        return "part of dsrl"
    return f"tried live on {said['tried']}" if said.get("tried") else "never tried live"


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


def chosen(node: dict[str, Any], live: bool) -> Iterator[Finding]:
    """What the chosen teacher needs, and, if asked for, one request."""
    from dsrl.pipeline.config import build

    try:
        endpoint: Endpoint = build(node, "teacher")
        endpoint.check()
    except UserError as error:
        yield Finding("!!", "settings", str(error))
        return
    address = endpoint.base_url or ("a server of the run" if endpoint.server else "the public address of OpenAI")
    yield Finding("ok", "settings", f"{endpoint.model} at {address}")
    yield _price(endpoint)
    yield _last_tried(endpoint)
    if live:
        from dsrl.cli.doctor.live import attempt

        yield from attempt(endpoint)


def _price(endpoint: "Endpoint") -> Finding:
    price = endpoint.price
    if price is None:
        return Finding("-", "price", "unknown")
    return Finding("ok", "price", f"${price.input:g} in, ${price.output:g} out per million tokens ({price.date})")


def _last_tried(endpoint: "Endpoint") -> Finding:
    if endpoint.tried:
        return Finding("ok", "tried live", endpoint.tried)
    return Finding("-", "tried live", "never; with live=true one tiny request is sent")
