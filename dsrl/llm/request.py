"""A request to a model, and the digest under which its replies are cached."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from dsrl.core.digest import digest
from dsrl.llm.structured.schema import JsonMode, response_format, with_response_format

DIGEST_LENGTH = 32


@dataclass(frozen=True)
class Request:
    """One question to a model. Its completions are numbered from 0."""

    messages: tuple[dict[str, Any], ...]
    """The content of a turn is text, or a list of parts that refer to images (`dsrl.data.images.content`)."""
    temperature: float
    top_p: float
    max_tokens: int
    schema: type[BaseModel] | None = None
    """Fields of a structured reply; None for free text."""


@dataclass(frozen=True)
class Call:
    """A request in the form in which one endpoint receives it."""

    digest: str
    """Hash of `identity`. Equal calls share their completions, whatever the stage and the endpoint's address."""
    identity: dict[str, Any]
    body: dict[str, Any]
    """JSON body without `n` and `seed`; structured output is requested in the endpoint's `json_mode`."""
    plain: dict[str, Any]
    """The body without any request for structured output."""
    schema: type[BaseModel] | None

    @classmethod
    def of(
        cls,
        plain: dict[str, Any],
        schema: type[BaseModel] | None = None,
        mode: JsonMode = "schema",
        limit: str = "max_tokens",
        server: Any = None,
    ) -> "Call":
        """`server` is the key of a server that the run starts itself, whose flags can change replies; `limit` is the
        endpoint's name for `max_tokens`.

        The identity holds the schema of an object, not the mode in which it was requested. After an endpoint refused
        the schema and another mode was used, the next run still finds the replies without being refused again.
        """
        identity = plain if schema is None else {**plain, "response_format": response_format(schema, "schema")}
        identity = identity if server is None else {**identity, "server": server}
        sent = {limit if name == "max_tokens" else name: value for name, value in plain.items()}
        body = sent if schema is None else with_response_format(sent, schema, mode)
        return cls(digest(identity, DIGEST_LENGTH), identity, body, sent, schema)

    def body_in(self, mode: JsonMode) -> dict[str, Any]:
        """The body that requests the object in another mode."""
        return self.plain if self.schema is None else with_response_format(self.plain, self.schema, mode)

    @cached_property
    def shape(self) -> str:
        """All that a request asks for except its messages: requests of one shape differ in their prompts only."""
        return repr(({name: value for name, value in self.plain.items() if name != "messages"}, self.schema))

    def id(self, index: int) -> str:
        """Key of one completion in the reply cache."""
        return f"{self.digest}:{index}"

    def seed(self, index: int) -> int:
        """Seed of an HTTP request whose first choice is completion `index`.

        A server that draws choice j from seed + j, as vLLM does, gives completion i the seed `seed(i)` however the
        completions are split into requests, so a resumed run that needs other blocks gets the same text. With other
        seeded servers this holds for equal blocks, which is what a killed and resumed run requests: a block is cached
        whole or not at all.
        """
        return int(self.digest[:7], 16) + index
