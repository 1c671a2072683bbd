"""The child process that talks to MLflow. It reads JSON lines: the first at the start of the run, live metrics while
it goes on, the last at its end.

If its input ends without the last one, the run was killed, and it says so in MLflow.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TextIO, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from dsrl.infra.tracking.series import Point, Series
from dsrl.infra.tracking.wandb_mirror import Mirror

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # else a server that is down blocks for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
BATCHES = {"metrics": 1000, "params": 100}
"""Most that MLflow takes at once."""

Item = TypeVar("Item")


def main() -> None:
    """One run from its first line to its last."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of our input is what ends us
    answers, sys.stdout = sys.stdout, sys.stderr
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    sys.modules["pandas"] = None  # type: ignore[assignment]  # MLflow does without, and loads a third faster
    opening = json.loads(sys.stdin.readline())
    lines = arriving(sys.stdin)
    client, run = begin(opening)
    mirror = Mirror(opening)
    series = Series(writer(client, run, mirror))
    finish(client, run, follow(series, lines), series, mirror)
    said = {"logged": run, "dropped": series.dropped, "mirror": mirror.error}
    with suppress(BrokenPipeError):  # after Ctrl-C nobody waits for the answer
        os.write(answers.fileno(), json.dumps(said).encode() + b"\n")


def writer(client: "MlflowClient", run: str, mirror: Mirror) -> Callable[[list[Point]], None]:
    """Logs points of the run."""

    def write(points: list[Point]) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        try:
            client.log_batch(run, metrics=[Metric(*point) for point in points])
        except MlflowException as error:
            raise ConnectionError(str(error)) from error
        mirror.log(points)

    return write


def arriving(stream: TextIO) -> "SimpleQueue[str]":
    """Lines as they come, the empty one at the end: the pipe is read even while MLflow keeps us waiting."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put("")

    Thread(target=read, daemon=True).start()
    return lines


def follow(series: Series, lines: "SimpleQueue[str]") -> dict[str, Any]:
    """Log live numbers, all that have arrived at once, until the closing message comes."""
    while True:
        line = lines.get()
        message: dict[str, Any] = json.loads(line) if line else {"status": "KILLED"}
        if "live" not in message:
            return message
        series.add(message["live"])
        if lines.empty():
            series.log()


def begin(opening: dict[str, Any]) -> tuple["MlflowClient", str]:
    """Make the run, below its sweep's if it has one."""
    from mlflow.entities import Param

    with alone(opening["lock"]):
        client = connected(opening["uri"])
        experiment = experiment_id(client, opening)
        tags = {**opening["tags"], **parent_tag(client, experiment, opening["sweep"])}
    run = client.create_run(experiment, run_name=opening["name"], tags=tags).info.run_id
    for batch in batches([Param(*pair) for pair in opening["parameters"].items()], BATCHES["params"]):
        client.log_batch(run, params=batch)
    return client, run


@contextmanager
def alone(lock: str) -> Iterator[None]:
    """MLflow's first-time migrations, and looking up before making, are not safe for several processes."""
    from filelock import FileLock

    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def connected(uri: str) -> "MlflowClient":
    """A client of this server or database; makes the database's tables on first use.

    MLflow's errors repeat the address, so a server's user and password go where only its requests look.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.password is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    from mlflow import MlflowClient

    return MlflowClient(uri)


def experiment_id(client: "MlflowClient", opening: dict[str, Any]) -> str:
    """The experiment, made on first use. A server knows where to keep artifacts; a local database is told."""
    found = client.get_experiment_by_name(opening["experiment"])
    if found is not None:
        return str(found.experiment_id)
    local = not opening["uri"].startswith(("http:", "https:", "databricks"))
    return str(client.create_experiment(opening["experiment"], opening["artifacts"] if local else None))


def parent_tag(client: "MlflowClient", experiment: str, sweep: str | None) -> dict[str, str]:
    """Names the sweep's run, made by the first of its jobs."""
    if sweep is None:
        return {}
    quoted = sweep.replace("'", "\\'")
    runs = client.search_runs([experiment], f"tags.`dsrl.sweep` = '{quoted}'", max_results=1)
    if runs:
        return {"mlflow.parentRunId": runs[0].info.run_id}
    parent = client.create_run(experiment, run_name=Path(sweep).name, tags={"dsrl.sweep": sweep}).info.run_id
    client.set_terminated(parent, "FINISHED")
    return {"mlflow.parentRunId": parent}


def finish(client: "MlflowClient", run: str, closing: dict[str, Any], series: Series, mirror: Mirror) -> None:
    """Log what came out and close the run."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    points = [Point(name, value, now, 0) for name, value in closing.get("metrics", {}).items()]
    rest = series.rest(closing.get("progress"), now)
    mirror.finish(closing, rest)
    for batch in batches(points + rest, BATCHES["metrics"]):
        client.log_batch(run, metrics=[Metric(*point) for point in batch])
    client.log_batch(run, tags=[RunTag(*pair) for pair in closing.get("tags", {}).items()])
    log_data_sets(client, run, closing.get("data_sets", []))
    for path in closing.get("artifacts", []):
        client.log_artifact(run, path)
    client.set_terminated(run, closing["status"])


def log_data_sets(client: "MlflowClient", run: str, data_sets: list[dict[str, Any]]) -> None:
    """Data sets as inputs of the run, by name, digest and place."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=given["name"], digest=given["digest"], source_type="local",
                source=json.dumps({"uri": given["source"]}), profile=json.dumps({"num_rows": given["rows"]}),
            ),
            [InputTag("mlflow.data.context", given["context"])],
        )
        for given in data_sets
    ]  # fmt: skip
    if inputs:
        client.log_inputs(run, datasets=inputs)


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


if __name__ == "__main__":
    main()
