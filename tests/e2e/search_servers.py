"""Real search servers for the tests: prepared ones that the tests start, or one of yours by its URL.

`DSRL_TEST_SEARCH_SERVERS` names a folder with an executable `start KIND PORT FOLDER [SETTING=VALUE ...]` that runs a
server in the foreground. Otherwise `DSRL_TEST_ELASTICSEARCH_URL` is used, with credentials from variables that are
named as those of dsrl with `DSRL_TEST_` in front.
"""

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FOLDER, URL = "DSRL_TEST_SEARCH_SERVERS", "DSRL_TEST_ELASTICSEARCH_URL"
PREPARED = ("elasticsearch", "elasticsearch-secure", "opensearch")
HOW_TO_START = (
    f"no search server ({FOLDER} is not set): docker run -p 9200:9200 -e discovery.type=single-node "
    f"-e xpack.security.enabled=false elasticsearch:9.2.2, and export {URL}=http://localhost:9200"
)
START_SECONDS = 180


@dataclass
class Server:
    """A running server, and how dsrl gets in."""

    kind: str
    url: str
    fields: dict[str, Any] = field(default_factory=dict)
    """Arguments of the retriever besides the URL."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables with credentials, which are set for the whole test session."""
    folder: Path | None = None
    settings: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def ca_file(self) -> str | None:
        return os.environ.get(self.fields.get("ca_file_env", ""))

    def start(self) -> None:
        """Start the process, on the data that its folder has, and wait until it answers."""
        assert self.folder is not None
        script = Path(os.environ[FOLDER]) / "start"
        command = [str(script), self.kind, str(self.port), str(self.folder), *self.settings]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "output.txt").read_text()[-2000:])
            time.sleep(0.3)

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(sign)
        self.process.wait(60)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                pass
            secure = self.url.startswith("https:")
            context = ssl.create_default_context(cafile=self.ca_file) if secure else None
            request = urllib.request.Request(self.url, headers=basic("admin"))
            with urllib.request.urlopen(request, timeout=5, context=context) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def api_key(self) -> dict[str, str]:
        """Id, key and encoded form of a new API key for `dsrl-*`; for the secure kind."""
        role = {
            "cluster": ["monitor"],
            "indices": [{"names": ["dsrl-*"], "privileges": ["create_index", "manage", "write", "read"]}],
        }
        body = json.dumps({"name": "test", "role_descriptors": {"r": role}}).encode()
        headers = {"Content-Type": "application/json", **basic("admin")}
        request = urllib.request.Request(f"{self.url}/_security/api_key", body, headers)
        context = ssl.create_default_context(cafile=self.ca_file)
        with urllib.request.urlopen(request, context=context) as reply:
            key: dict[str, str] = json.load(reply)
        return key


def basic(name: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{name}-password".encode()).decode()}


def kinds() -> tuple[str, ...]:
    return PREPARED if os.environ.get(FOLDER) or not os.environ.get(URL) else ("given",)


@contextmanager
def running(kind: str, folder: Path, *settings: str) -> Iterator[Server]:
    """A server of this kind; skips the test if there is none."""
    if kind == "given":
        names = ("api_key", "username", "password", "ca_file", "ca_fingerprint")
        fields = {f"{name}_env": f"DSRL_TEST_ELASTICSEARCH_{name.upper()}" for name in names}
        environment = {name: os.environ[name] for name in fields.values() if name in os.environ}
        yield Server(kind, os.environ[URL], fields, environment)
        return
    if not os.environ.get(FOLDER):
        pytest.skip(HOW_TO_START)
    port = free_port()
    if kind == "elasticsearch-secure":
        fields = {f"{name}_env": f"SECURE_{name.upper()}" for name in ("username", "password", "ca_file")}
        values = ("writer", "writer-password", str(folder / "config/ca.pem"))
        environment = dict(zip(fields.values(), values, strict=True))
        server = Server(kind, f"https://localhost:{port}", fields, environment, folder, settings)
    else:
        server = Server(kind, f"http://localhost:{port}", folder=folder, settings=settings)
    os.environ.update(server.environment)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        for name in server.environment:
            os.environ.pop(name, None)


def free_port() -> int:
    """A port that is free, as is the one 100 above it, on which the server's nodes would talk to each other."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 100))
            except (OSError, OverflowError):
                continue
            return port
