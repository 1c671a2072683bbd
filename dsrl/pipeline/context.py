"""What a run provides to its stages: store, reply cache, ledger, progress, and resources that stay open."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dsrl.data.images import Gallery, ImageStore
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.servers import Servers
from dsrl.llm.structured.schema import JsonModeFallback
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.store import Store, write_json

if TYPE_CHECKING:
    from dsrl.data.task import Task
    from dsrl.llm import Client, Endpoint
    from dsrl.pipeline.state import PipelineState

Thing = TypeVar("Thing")


@dataclass
class Context:
    """Services of a run. Nothing in it changes a result."""

    run_dir: Path
    store: Store
    reply_cache: ReplyCache
    progress: Progress
    ledger: Ledger = field(default_factory=Ledger)
    accept_missing: bool = False
    """Whether a stage may be stored although some calls failed."""
    stage: str = ""
    """Name of the running stage."""
    scratch: Path = Path()
    """Folder that becomes the stage's store entry: side tables and models are written here."""
    work: Path = Path()
    """Folder that survives a killed process, for checkpoints."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Content of `metrics.json`."""
    state: "PipelineState | None" = None
    """The latest pipeline state, for tracking a run that fails."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _kept: dict[str, Any] = field(default_factory=dict)
    _servers: Servers | None = None
    _json_modes: JsonModeFallback = field(default_factory=JsonModeFallback)

    def begin(self, stage: str) -> None:
        """Start a stage: spending and progress now count for it."""
        self.stage = stage
        self.ledger.begin(stage)
        self.progress.begin()

    def gallery(self, task: "Task") -> Gallery:
        """The images of this task."""
        return Gallery(self.images, task.pixels)

    @property
    def images(self) -> ImageStore:
        """The images of all tasks, by content."""
        return ImageStore(self.store.root / "images")

    def connect(self, endpoint: "Endpoint", role: str) -> "Client":
        """A client for the running stage: `async with context.connect(teacher, "teacher") as client`."""
        from dsrl.llm import Client

        if self._servers is None:
            self._servers = Servers()
            self._stack.callback(self._servers.close)
        client = Client(
            *(endpoint, self.reply_cache, self.ledger, self._servers),
            role=role,
            stage=self.stage,
            json_modes=self._json_modes,
            images=self.images,
        )
        self.progress.follow(client.status, self.ledger.current_stage)
        return client

    def keep(self, name: str, make: Callable[[], Thing], close: Callable[[Thing], None]) -> Thing:
        """A resource for the whole run, such as a loaded model: made on first use, closed at the end."""
        if name not in self._kept:
            thing = make()
            self._kept[name] = thing
            self._stack.callback(close, thing)
        return self._kept[name]  # type: ignore[no-any-return]

    def write_metrics(self) -> None:
        """Write `metrics.json`, so that a killed run leaves its metrics."""
        write_json(self.run_dir / "metrics.json", self.metrics)

    def close(self) -> None:
        """Stop servers and child processes, and close the reply cache."""
        self._stack.close()
        self._kept.clear()
        self.reply_cache.close()
