"""How a search server is reached: addresses, credentials, certificates. Secrets are read from the environment only."""

import base64
import binascii
import hashlib
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from dsrl.core.component import Many, component
from dsrl.core.errors import UserError
from dsrl.core.http_client import tls_context

DEFAULT_PORTS = {"http": 80, "https": 443}
FINGERPRINT_TIMEOUT = 10.0
_DER = 2
"""`_ssl.ENCODING_DER`."""


@component(None)
class Access:
    """Address and credentials of a server. None of it changes what is found there."""

    url: str | Many[str] = "http://localhost:9200"
    """Scheme, host and port; a list for several nodes of one cluster. For `https` the certificate is verified."""
    cloud_id: str | None = None
    """Elastic Cloud ID, instead of `url`."""
    api_key_env: str = "ELASTICSEARCH_API_KEY"
    """Environment variable with an API key: encoded, or as `id:key`."""
    username_env: str = "ELASTICSEARCH_USERNAME"
    """Environment variable with an account name, instead of an API key."""
    password_env: str = "ELASTICSEARCH_PASSWORD"  # noqa: S105
    ca_file_env: str = "ELASTICSEARCH_CA_FILE"
    """Environment variable with the path of a certificate authority (PEM), trusted besides the usual ones."""
    ca_fingerprint_env: str = "ELASTICSEARCH_CA_FINGERPRINT"
    """Environment variable with the SHA-256 fingerprint (hex) of the server's certificate authority, trusted alone."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for a reply."""
    retries: int = Field(default=6, ge=0)
    """Retries of a request that the server rejects because it is busy (HTTP 429)."""
    patience: float = Field(default=180.0, ge=0)
    """Seconds for which a server that stopped answering is retried, for example during a restart."""

    @property
    def addresses(self) -> list[str]:
        """One URL for each node, without a trailing slash. Raises `UserError` for an invalid one."""
        if self.cloud_id is not None:
            return [self._cloud_address(self.cloud_id)]
        urls = [self.url] if isinstance(self.url, str) else list(self.url)
        if not urls:
            raise UserError("retriever.url is empty", next_step="set retriever.url=http(s)://host:port")
        return [self._checked(url) for url in urls]

    def _checked(self, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise UserError(
                "retriever.url must not contain credentials (they are not repeated here)",
                next_step=f"export {self.username_env}=... {self.password_env}=... and remove them from the URL",
            )
        try:
            host, port = parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
        except (KeyError, ValueError):
            host = None
        if not host:
            raise UserError("retriever.url is not a valid address", got=url, allowed="http(s)://host:port")
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"

    @staticmethod
    def _cloud_address(cloud_id: str) -> str:
        """The Elasticsearch address in a cloud ID, `name:base64(host[:port]$id of Elasticsearch$id of Kibana)`."""
        try:
            host, identifier, *_ = base64.b64decode(cloud_id.rpartition(":")[2], validate=True).decode().split("$")
        except (binascii.Error, UnicodeDecodeError, ValueError) as error:
            raise UserError(
                "retriever.cloud_id is not valid",
                got=cloud_id,
                allowed="name:base64, as the Elastic Cloud console shows it",
            ) from error
        host, _, port = host.partition(":")
        return f"https://{identifier}.{host}:{port or 443}"

    def authorization(self) -> str | None:
        """Value of the header `Authorization`. Raises `UserError` for half an account, or a key and an account."""
        key, name, password = (os.environ.get(env) for env in (self.api_key_env, self.username_env, self.password_env))
        if key and (name or password):
            raise UserError(
                f"both {self.api_key_env} and an account are set",
                next_step=f"unset {self.api_key_env}, or {self.username_env} and {self.password_env}",
            )
        if bool(name) != bool(password):
            missing = self.username_env if password else self.password_env
            raise UserError(f"{missing} is not set, but the rest of the account is", next_step=f"export {missing}=...")
        if key:
            return f"ApiKey {base64.b64encode(key.encode()).decode() if ':' in key else key}"
        return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}" if name else None

    def check(self) -> None:
        """Raise `UserError` for mistakes that can be found without a server."""
        encrypted = any(address.startswith("https:") for address in self.addresses)
        self.authorization()
        path = os.environ.get(self.ca_file_env)
        if encrypted and path and not Path(path).is_file():
            raise UserError(f"{self.ca_file_env}: no such file", got=path)
        self._fingerprint()

    def tls(self) -> ssl.SSLContext | None:
        """Context that verifies the server's certificate; None for plain HTTP. Connects if a fingerprint is set."""
        encrypted = [address for address in self.addresses if address.startswith("https:")]
        if not encrypted:
            return None
        if fingerprint := self._fingerprint():
            return self._pinned_context(encrypted, fingerprint)
        path = os.environ.get(self.ca_file_env)
        try:
            return tls_context(path)
        except OSError as error:
            raise UserError(f"{self.ca_file_env} contains no certificate", got=path) from error

    def _fingerprint(self) -> str | None:
        given = os.environ.get(self.ca_fingerprint_env)
        if not given:
            return None
        fingerprint = given.replace(":", "").lower()
        if len(fingerprint) != 64 or not set(fingerprint) <= set("0123456789abcdef"):
            raise UserError(f"{self.ca_fingerprint_env} is not a SHA-256", got=given, allowed="64 hexadecimal digits")
        return fingerprint

    def _pinned_context(self, addresses: list[str], fingerprint: str) -> ssl.SSLContext:
        """Trust only the certificate with this fingerprint, found in the chain that a node presents."""
        blind = ssl.create_default_context()
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE  # nothing is sent over this connection
        for address in addresses:
            parts = urlsplit(address)
            try:
                with (
                    socket.create_connection((parts.hostname, parts.port), FINGERPRINT_TIMEOUT) as plain,
                    blind.wrap_socket(plain, server_hostname=parts.hostname) as encrypted,
                ):
                    # public from Python 3.13 on, as SSLSocket.get_unverified_chain
                    chain = [item.public_bytes(_DER) for item in encrypted._sslobj.get_unverified_chain()]  # type: ignore[attr-defined]
            except OSError:
                continue  # another node, or the first request, reports it
            for certificate in chain:
                if hashlib.sha256(certificate).hexdigest() == fingerprint:
                    context = ssl.create_default_context(cadata=certificate)
                    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # accept a server's own certificate as well
                    return context
            raise UserError(
                f"no certificate of {address} has the fingerprint in {self.ca_fingerprint_env}",
                got=", ".join(hashlib.sha256(certificate).hexdigest() for certificate in chain),
                next_step=f"compare it with the one that the server printed, or export {self.ca_file_env}=FILE",
            )
        return ssl.create_default_context()
