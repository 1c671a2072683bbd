"""Proxies and certificates of outgoing connections."""

import pytest

from dsrl.core.errors import UserError
from dsrl.core.http_client import proxy_arguments, tls_context


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
def test_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "127.0.0.1:3128")
    assert proxy_arguments("http://teacher.example/v1") == {"proxy": "http://127.0.0.1:3128"}


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("name", ["https_proxy", "all_proxy"])
def test_socks_proxy_is_refused_and_never_bypassed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "socks5://user:sekret@127.0.0.1:1080")
    with pytest.raises(UserError, match=name.upper()) as caught:
        proxy_arguments("https://teacher.example/v1")
    assert "sekret" not in str(caught.value)


def test_missing_certificate_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/ca.pem")
    with pytest.raises(UserError, match="SSL_CERT_FILE"):
        tls_context()
