"""`python -m tests.support.faultserver serve|bench`: an OpenAI-compatible server that fails on demand, and a bench."""

import argparse
import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from dsrl.core.child_process import end_with_parent
from dsrl.core.errors import UserError
from tests.support.faultserver.faults import Faults
from tests.support.faultserver.listener import HOST, Listener
from tests.support.faultserver.server import App, run

EXAMPLES = """examples:
  python -m tests.support.faultserver serve --port 8000 --answer quickstart
  python -m tests.support.faultserver serve --latency 0.4 --sigma 0.8 --shortest 0.05 --longest 2 --capacity 20
  python -m tests.support.faultserver serve --shares '{500: 0.05, hang: 0.01}' --outages '[{start: 30, end: 90}]'
  python -m tests.support.faultserver bench

Values are YAML. While it runs: GET /stats, GET /log, POST /control with a JSON object of new values.
"""


def parser() -> argparse.ArgumentParser:
    """Every field of `Faults` is an option."""
    made = argparse.ArgumentParser("python -m tests.support.faultserver", description=__doc__, epilog=EXAMPLES, **_RAW)
    verbs = made.add_subparsers(dest="verb", required=True)
    server = verbs.add_parser("serve", help="listen until stopped", epilog=EXAMPLES, **_RAW)
    server.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    server.add_argument("--log", type=Path, help="file to which finished requests are added, as JSON lines")
    server.add_argument("--json", help="all fields at once, as JSON")
    server.add_argument("--child", action="store_true", help="end with standard input")
    for field in dataclasses.fields(Faults):
        about = Faults.__pydantic_fields__[field.name].description or ""  # type: ignore[attr-defined]
        server.add_argument(f"--{field.name.replace('_', '-')}", help=" ".join(about.split()).replace("%", "%%"))
    measure = verbs.add_parser("bench", help="requests per second of the server itself, with a raw client")
    measure.add_argument("--requests", type=int, default=20000)
    measure.add_argument("--connections", type=int, default=128)
    return made


_RAW: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}


def faults(arguments: argparse.Namespace) -> Faults:
    """The description that the options make. Raises `UserError` for what doesn't fit."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Faults)}
    values = {name: yaml.safe_load(text) for name, text in given.items() if text is not None}
    values = {**json.loads(arguments.json or "{}"), **values}
    if isinstance(shares := values.get("shares"), dict):
        values["shares"] = {str(name): share for name, share in shares.items()}
    try:
        return TypeAdapter(Faults).validate_json(json.dumps(values))
    except ValidationError as error:
        problems = [f"--{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError("faults that can't be", got="; ".join(problems), next_step="see serve --help") from error


async def listen(arguments: argparse.Namespace) -> None:
    """Serve, after a line that says where."""
    app = App(faults(arguments), arguments.log)
    public, control = Listener(app.handle, arguments.port), Listener(app.handle)
    await control.open()
    if not app.refuses:
        await public.open()
    where = {"url": f"http://{HOST}:{public.port}/v1", "control": f"http://{HOST}:{control.port}"}
    print(json.dumps(where), flush=True)
    await run(app, public)


def main(given: list[str] | None = None) -> int:
    """Exit code."""
    arguments = parser().parse_args(given)
    if arguments.verb == "bench":
        from tests.support.faultserver.bench import bench

        print(bench(arguments.requests, arguments.connections))
        return 0
    if arguments.child:
        end_with_parent(sys.stdin)
    try:
        asyncio.run(listen(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
