"""What is asked of a model, and the identity under which the replies are stored."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dsrl.core.digest import digest
from dsrl.llm.structured.schema import JsonMode, asked, response_format

DIGEST_LENGTH = 32


@dataclass(frozen=True)
class Request:
    """One question to a model; its completions are told apart by their index."""

    messages: tuple[dict[str, Any], ...]
    """The content of a turn is a text, or parts that refer to pictures (`dsrl.data.images.content`)."""
    temperature: float
    top_p: float
    max_tokens: int
    schema: type[BaseModel] | None = None
    """The fields of a structured reply; None: free text."""


@dataclass(frozen=True)
class Call:
    """A request as one endpoint gets it."""

    digest: str
    """Over `identity`: equal calls share their completions, whoever makes them and wherever the endpoint listens."""
    identity: dict[str, Any]
    body: dict[str, Any]
    """The JSON body but for `n` and `seed`, with objects asked for as the endpoint says that it takes them."""
    plain: dict[str, Any]
    """The same without that."""
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
        """`server` is the identity of a server that the run starts itself, whose dials change its replies;
        `limit` the endpoint's name for `max_tokens`.

        The identity holds the schema of an object, not the way in which it was asked for: an endpoint that refuses
        the schema is asked in another way, and the next run finds what was paid for without being refused again.
        """
        identity = plain if schema is None else {**plain, "response_format": response_format(schema, "schema")}
        identity = identity if server is None else {**identity, "server": server}
        sent = {limit if name == "max_tokens" else name: value for name, value in plain.items()}
        body = sent if schema is None else asked(sent, schema, mode)
        return cls(digest(identity, DIGEST_LENGTH), identity, body, sent, schema)

    def body_in(self, mode: JsonMode) -> dict[str, Any]:
        """The body with the object asked for in another way."""
        return self.plain if self.schema is None else asked(self.plain, self.schema, mode)

    def id(self, index: int) -> str:
        """Names one completion: its place in the calls store."""
        return f"{self.digest}:{index}"

    def seed(self, index: int) -> int:
        """Seed for a request whose first choice is completion `index`.

        A server that draws choice j from seed + j, as vLLM does, then gives completion i the seed `seed(i)`, however
        the completions were cut into requests: a resumed run that asks for other blocks gets the same words. With any
        other seeded server that holds for equal blocks, which is what a run killed and started again asks for, because
        a block is stored whole or not at all.
        """
        return int(self.digest[:7], 16) + index
