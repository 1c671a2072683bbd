"""A Ray that somebody else keeps running."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.infra.ray.base import Cluster, Ray, Say
from dsrl.infra.ray.ready import environment, found_ray, ready, words
from dsrl.infra.ray.start import require


@component("cluster.address")
class RayAddress(Cluster):
    """Used, and left running."""

    elsewhere: ClassVar[bool] = True

    address: str
    """HOST:PORT of its head."""
    token_env: str | None = "RAY_AUTH_TOKEN"  # noqa: S105
    """Environment variable that holds its token; None: it has none (RAY_AUTH_MODE=disabled)."""
    nodes: int = Field(default=1, ge=1)
    """To wait for."""

    @field_validator("address")
    @classmethod
    def _with_port(cls, address: str) -> str:
        if not re.fullmatch(r"[\w.-]+:\d{1,5}", address):
            raise UserError(
                "cluster.address: not HOST:PORT", got=address, allowed="such as 10.0.0.5:6379, without ray://",
                next_step="`ray status` on its head shows it",
            )  # fmt: skip
        return address

    def num_nodes(self) -> int:
        return self.nodes

    def check(self) -> None:
        """There is a token, and somebody listens at the address."""
        if self.token_env is not None and not os.environ.get(self.token_env, "").strip():
            raise UserError(
                f"cluster=ray: {self.token_env} is not set",
                allowed="the token that the cluster was started with",
                next_step=f"export {self.token_env}=..., or cluster.token_env=null for a Ray without tokens",
            )
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1.5).close()
        except OSError as error:
            raise UserError(
                f"cluster.address: nobody answers at {self.address}", got=error, next_step="is that Ray up? ray status"
            ) from error

    @contextmanager
    def open(self, folder: Path, python: str = sys.executable, say: Say = print) -> Iterator[Ray]:  # noqa: ARG002
        self.check()
        require(python)
        token = os.environ[self.token_env].strip() if self.token_env else ""
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        variables = environment(**auth)
        found = ready(
            self.address, self.nodes, self.ready_seconds, python, variables, lambda: None, "`ray status` on its head"
        )
        say(f"Ray {self.address}: {words(found)}")
        driver = {**variables, "RAY_ADDRESS": self.address}
        yield found_ray(self.address, found, driver, self.runtime_env)
