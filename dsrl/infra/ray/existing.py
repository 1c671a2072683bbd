"""A Ray that was started outside of dsrl."""

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
from dsrl.infra.ray.base import Cluster, Notify, RunningRay
from dsrl.infra.ray.ready import describe_nodes, ray_environment, require_ray, running_ray, wait_until_ready


@component("cluster.address")
class RayAddress(Cluster):
    """Connects to the Ray at an address and leaves it running."""

    elsewhere: ClassVar[bool] = True

    address: str
    """HOST:PORT of its head."""
    token_env: str | None = "RAY_AUTH_TOKEN"  # noqa: S105
    """Environment variable that holds its token; None for a Ray with RAY_AUTH_MODE=disabled."""
    nodes: int = Field(default=1, ge=1)
    """Number of nodes to wait for."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if not re.fullmatch(r"[\w.-]+:\d{1,5}", address):
            raise UserError(
                "cluster.address must be HOST:PORT",
                got=address,
                allowed="an address such as 10.0.0.5:6379, without ray://",
                next_step="`ray status` on the head node shows it",
            )
        return address

    def num_nodes(self) -> int:
        return self.nodes

    def check(self) -> None:
        if self.token_env is not None and not os.environ.get(self.token_env, "").strip():
            raise UserError(
                f"cluster=ray: {self.token_env} is not set",
                allowed="the token that the Ray was started with",
                next_step=f"export {self.token_env}=..., or give cluster.token_env=null for a Ray without a token",
            )
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1.5).close()
        except OSError as error:
            raise UserError(
                f"cluster.address: can't connect to {self.address}",
                got=error,
                next_step="run `ray status` on its head node to see whether it is up",
            ) from error

    @contextmanager
    def open(self, folder: Path, python: str = sys.executable, notify: Notify = print) -> Iterator[RunningRay]:  # noqa: ARG002
        self.check()
        require_ray(python)
        token = os.environ[self.token_env].strip() if self.token_env else ""
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        environment = ray_environment(**auth)
        nodes = wait_until_ready(
            self.address,
            self.nodes,
            self.ready_seconds,
            python,
            environment,
            start_failure=lambda: None,
            where_to_look="`ray status` on its head node",
        )
        notify(f"Ray {self.address}: {describe_nodes(nodes)}")
        yield running_ray(self.address, nodes, environment, self.runtime_env)
