"""Where the server is, and what it lets us in with. Secrets stand in the environment only."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError

PORTS = {"http": 80, "https": 443}


@component(None)
class Access:
    """How a server is reached. None of it changes what is found there."""

    url: str = "http://localhost:9200"
    """Scheme, host and port; for `https` the certificate is always verified."""
    api_key_env: str = "ELASTICSEARCH_API_KEY"
    """Environment variable that holds an API key, in its encoded form; unset: none is sent."""
    username_env: str = "ELASTICSEARCH_USERNAME"
    """Environment variable that holds the name of an account, instead of an API key."""
    password_env: str = "ELASTICSEARCH_PASSWORD"  # noqa: S105
    ca_file_env: str = "ELASTICSEARCH_CA_FILE"
    """Environment variable that names the certificate (PEM) of the server's own authority."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for one reply."""
    retries: int = Field(default=6, ge=0)
    """Times that a request is sent again after no reply, or one that says the server is busy."""

    @property
    def address(self) -> str:
        """The URL with its port, which the client insists on. Raises `UserError` for one that can't be."""
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise UserError(
                "retriever.url holds an account: that belongs into the environment (it is not repeated here)",
                next_step=f"export {self.username_env}=... {self.password_env}=... and take it out of the URL",
            )
        try:
            host, port = parts.hostname, parts.port or PORTS[parts.scheme]
        except (KeyError, ValueError):
            host = None
        if not host:
            raise UserError("retriever.url is no address of a server", got=self.url, allowed="http(s)://host:port")
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"

    def arguments(self) -> dict[str, Any]:
        """Of the client: the address, and what the environment lets us in with. Raises `UserError` for half of an
        account, or two of them."""
        key, name, password = (os.environ.get(env) for env in (self.api_key_env, self.username_env, self.password_env))
        if key and (name or password):
            raise UserError(
                f"Elasticsearch: both {self.api_key_env} and an account are in the environment",
                next_step=f"unset {self.api_key_env}, or {self.username_env} and {self.password_env}",
            )
        if bool(name) != bool(password):
            missing = self.username_env if password else self.password_env
            raise UserError(
                f"Elasticsearch: half of an account: {missing} is not set", next_step=f"export {missing}=..."
            )
        found: dict[str, Any] = {"hosts": [self.address], **self._authority()}
        if key:
            found["api_key"] = key
        if name:
            found["basic_auth"] = (name, password)
        return found

    def _authority(self) -> dict[str, str]:
        path = os.environ.get(self.ca_file_env)
        if not path or not self.url.startswith("https:"):
            return {}
        if not Path(path).is_file():
            raise UserError(f"Elasticsearch: {self.ca_file_env} names no file", got=path)
        return {"ca_certs": path}
