"""Prices of tokens, with the date on which they were looked up, from the teacher's YAML or the user's CSV file."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.data.model import Usage

MILLION = 1_000_000
COLUMNS = ("model", "input", "cached_input", "output", "date")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@component("llm.price")
class Price(Component):
    """Dollars per million tokens."""

    input: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    """Price of input tokens read from the endpoint's prompt cache; None: the same as `input`."""
    output: float = Field(ge=0)
    batch: float = Field(default=1.0, ge=0, le=1)
    """Factor on all prices for requests sent through the batch API."""
    date: str
    """Date on which the price was looked up, as in 2026-11-20."""

    def cost(self, usage: Usage, batch: bool = False) -> float:
        """Dollars for the tokens that the endpoint reports."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input_tokens - usage.cached_tokens
        dollars = (fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / MILLION
        return dollars * self.batch if batch else dollars


def read_prices(path: Path) -> dict[str, Price]:
    """Read model -> price from a CSV file with columns `model,input,cached_input,output,date` and optionally `batch`.

    Raises `UserError` with file and line for an invalid row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restkey="(more)", strict=True)
            names = rows.fieldnames or ()
            if not set(COLUMNS) <= set(names) <= {*COLUMNS, "batch"}:
                raise UserError(
                    f"prices: {path}, line 1: wrong columns", got=",".join(names), allowed=",".join(COLUMNS)
                )
            return {row["model"].strip(): _price(row, f"{path}, line {rows.line_num}") for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            "prices: the file can't be read",
            got=f"{path}: {error}",
            next_step=f"give prices=FILE.csv, with the columns {','.join(COLUMNS)}, or leave it out",
        ) from error


def _price(row: Mapping[str, Any], place: str) -> Price:
    def invalid(allowed: str) -> UserError:
        fields = [value for name, value in row.items() if name != "(more)" and value is not None]
        return UserError(
            f"prices: {place} is not a price",
            got=",".join([*map(str, fields), *map(str, row.get("(more)", ()))]),
            allowed=f"{allowed}  ({','.join(COLUMNS)})",
            next_step="correct the line",
        )

    text = {name: str(value or "").strip() for name, value in row.items()}
    if "(more)" in row or None in row.values() or not text["model"]:
        raise invalid("a line has as many fields as the first, and begins with a model")
    if not DATE.fullmatch(text["date"]):
        raise invalid("a date as in 2026-11-20")
    try:
        numbers = {name: float(text[name]) for name in ("input", "output")}
        numbers |= {name: float(text[name]) for name in ("cached_input", "batch") if text.get(name)}
        price = Price(**numbers, date=text["date"])
    except (ValueError, ValidationError) as error:
        raise invalid("numbers of 0 or more; cached_input may be empty, batch is at most 1") from error
    if not all(math.isfinite(number) for number in numbers.values()):
        raise invalid("finite numbers")
    return price


def with_prices(node: Any, prices: Mapping[str, Price]) -> Any:
    """A composed config in which each endpoint whose model is in `prices` has that price."""
    if isinstance(node, list):
        return [with_prices(item, prices) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: with_prices(value, prices) for name, value in node.items()}
    if {"model", "price"} <= node.keys() and isinstance(node["model"], str) and node["model"] in prices:
        price = prices[node["model"]]
        values = {name: getattr(price, name) for name in (*COLUMNS[1:], "batch")}
        return {**node, "price": {"_target_": "dsrl.llm.Price", **values}}
    return node


def price_warning(pipeline: Any, file: str | None) -> str | None:
    """A warning if the price file contains none of the models that the pipeline calls, else None."""
    if file is None:
        return None
    priced, called = set(read_prices(Path(file).expanduser())), set(_endpoint_models(pipeline))
    if not called or priced & called:
        return None
    return (
        f"prices={file} has no price for {', '.join(sorted(called))}, only for {', '.join(sorted(priced)) or 'nothing'}"
    )


def _endpoint_models(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping) and {"model", "price"} <= node.keys() and isinstance(node["model"], str):
        yield node["model"]
    if isinstance(node, (Mapping, list)):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _endpoint_models(value)
