"""TLS and proxies of outgoing HTTP connections, the same for teachers and search servers."""

import ssl
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verify certificates as the SDKs of the providers do, wherever the machine keeps its authorities.

    `ca_file` (PEM) adds authorities. Raises OSError for a file that contains no certificate.
    """
    import httpx2

    context: ssl.SSLContext = httpx2.create_ssl_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def proxy_arguments(url: str) -> dict[str, Any]:
    """Arguments of an aiohttp request for the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY select.

    Empty without a proxy, and always for this machine itself.
    """
    import aiohttp

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return {}
    proxies = urllib.request.getproxies()
    proxy = urlsplit(proxies.get(parts.scheme) or proxies.get("all") or "")
    if not proxy.hostname:
        return {}
    without_login = proxy._replace(netloc=proxy.netloc.rpartition("@")[2]).geturl()
    if proxy.username is None:
        return {"proxy": without_login}
    login = aiohttp.encode_basic_auth(unquote(proxy.username), unquote(proxy.password or ""))
    place = "headers" if parts.scheme == "http" else "proxy_headers"  # plain HTTP has no CONNECT to carry it
    return {"proxy": without_login, place: {"Proxy-Authorization": login}}
