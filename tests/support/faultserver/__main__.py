"""`python -m tests.support.faultserver serve|bench`: an OpenAI-compatible server that fails on request."""

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
from tests.support.faultserver.bench import bench
from tests.support.faultserver.faults import Faults
from tests.support.faultserver.server import HOST, Backend, run

EXAMPLES = """examples:
  python -m tests.support.faultserver serve --port 8000 --answer quickstart
  python -m tests.support.faultserver serve --latency 0.4 --sigma 0.8 --shortest 0.05 --longest 2 --capacity 20
  python -m tests.support.faultserver serve --shares '{500: 0.05, hang: 0.01}' --outages '[{start: 30, end: 90}]'
  python -m tests.support.faultserver bench

Values are YAML. While it runs: GET /stats, GET /log, POST /control with a JSON object of new values.
"""


def build_parser() -> argparse.ArgumentParser:
    """Every field of `Faults` becomes an option of `serve`."""
    raw: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("python -m tests.support.faultserver", description=__doc__, epilog=EXAMPLES, **raw)
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="serve until stopped", epilog=EXAMPLES, **raw)
    serve.add_argument("--port", type=int, default=0, help="0: a free port, which is printed")
    serve.add_argument("--log", type=Path, help="append finished requests to this file as JSON lines")
    serve.add_argument("--json", help="all fields as one JSON object")
    serve.add_argument("--child", action="store_true", help="exit when standard input closes")
    for field in dataclasses.fields(Faults):
        about = Faults.__pydantic_fields__[field.name].description or ""  # type: ignore[attr-defined]
        serve.add_argument(f"--{field.name.replace('_', '-')}", help=" ".join(about.split()).replace("%", "%%"))
    measure = verbs.add_parser("bench", help="measure the server's own requests per second")
    measure.add_argument("--requests", type=int, default=20000)
    measure.add_argument("--connections", type=int, default=128)
    return parser


def parse_faults(arguments: argparse.Namespace) -> Faults:
    """Raises `UserError` for invalid values."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Faults)}
    values = json.loads(arguments.json or "{}")
    values |= {name: yaml.safe_load(text) for name, text in given.items() if text is not None}
    if isinstance(shares := values.get("shares"), dict):
        values["shares"] = {str(name): share for name, share in shares.items()}
    try:
        return TypeAdapter(Faults).validate_json(json.dumps(values))
    except ValidationError as error:
        problems = [f"--{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError("invalid faults", got="; ".join(problems), next_step="see serve --help") from error


def announce(public: int, control: int) -> None:
    print(json.dumps({"url": f"http://{HOST}:{public}/v1", "control": f"http://{HOST}:{control}"}), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.verb == "bench":
        print(bench(arguments.requests, arguments.connections))
        return 0
    if arguments.child:
        end_with_parent(sys.stdin)
    try:
        asyncio.run(run(Backend(parse_faults(arguments), arguments.log), arguments.port, announce))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
