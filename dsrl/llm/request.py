"""What is asked of a model, and the identity under which the replies are stored."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dsrl.digest import digest

DIGEST_LENGTH = 32


@dataclass(frozen=True)
class Request:
    """One question to a model; its completions are told apart by their index."""

    messages: tuple[dict[str, str], ...]
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
    """The JSON body but for `n` and `seed`."""

    @classmethod
    def of(cls, body: dict[str, Any], server: Any) -> "Call":
        """`server` is the identity of a server that the run starts itself, whose dials change its replies."""
        identity = body if server is None else {**body, "server": server}
        return cls(digest(identity, DIGEST_LENGTH), identity, body)

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
