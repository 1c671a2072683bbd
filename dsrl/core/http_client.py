"""TLS and proxies of outgoing HTTP connections, the same for teachers and search servers."""

import os
import ssl
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

from dsrl.core.errors import UserError

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verify certificates as the SDKs of the providers do, wherever the machine keeps its authorities.

    `ca_file` (PEM) adds authorities. Raises OSError if it contains no certificate, and `UserError` if an environment
    variable names a file that can't be read.
    """
    import httpx2

    try:
        context: ssl.SSLContext = httpx2.create_ssl_context()
    except OSError as error:
        variables = [f"{name}={os.environ[name]}" for name in CA_VARIABLES if os.environ.get(name)]
        raise UserError(
            "the certificates of trusted authorities can't be read",
            got=f"{error}  ({', '.join(variables) or 'neither SSL_CERT_FILE nor SSL_CERT_DIR is set'})",
            next_step="correct or unset the variable",
        ) from error
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def proxy_arguments(url: str) -> dict[str, Any]:
    """Arguments of an aiohttp request for the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY select.

    Empty without a proxy, and always for this machine itself. A proxy without a scheme is an HTTP proxy, as for curl.
    Raises `UserError` for a proxy of another kind, such as SOCKS, rather than to bypass it.
    """
    import aiohttp

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return {}
    proxies = urllib.request.getproxies()
    value = proxies.get(parts.scheme) or proxies.get("all")
    if not value:
        return {}
    proxy = urlsplit(value if "://" in value else f"http://{value}")
    without_login = proxy._replace(netloc=proxy.netloc.rpartition("@")[2]).geturl()
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        variable = f"{parts.scheme}_proxy".upper() if proxies.get(parts.scheme) else "ALL_PROXY"
        raise UserError(
            f"the proxy in {variable} can't be used",
            got=without_login,
            allowed="an HTTP proxy: http://HOST:PORT",
            next_step=f"set {variable} to an HTTP proxy, or list {host} in NO_PROXY",
        )
    if proxy.username is None:
        return {"proxy": without_login}
    login = aiohttp.encode_basic_auth(unquote(proxy.username), unquote(proxy.password or ""))
    place = "headers" if parts.scheme == "http" else "proxy_headers"  # plain HTTP has no CONNECT to carry it
    return {"proxy": without_login, place: {"Proxy-Authorization": login}}
