"""What a person sees while models train: a line for each stack on a terminal, a plain line now and then elsewhere.

Sinks (trackio, wandb, TensorBoard) get the same numbers where they are asked for. They get names, sizes and losses,
never an environment, a token of access or a text.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.text import Text

from filters.errors import ResourceMissing
from infra.progress import Screen, clock_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How far a stack is: steps that this attempt has taken, targets seen by each model and to be seen (those of the
    branch where one is being decayed), mean loss of the step in nats by trial, speed of all models together.
    """

    step: int
    tokens: int
    budget: int
    losses: Mapping[str, float]
    tokens_per_second: float
    seconds_left: float


class Sink(Protocol):
    """Where numbers go beside the terminal."""

    def log(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one trial; `step` is targets seen, so that runs of other batches share an axis."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class TrainingProgress(Screen):
    """Shows what training tasks report. `labels` are the names of trials."""

    def __init__(
        self,
        stream: TextIO,
        *,
        labels: Mapping[str, str],
        sink: Sink | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, quiet=quiet, clock=clock)
        self._labels, self._sink = labels, sink
        self._running: dict[str, Said] = {}
        self._total = self._ended = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._sink is not None:
            self._sink.close()

    def stage(self, name: str, tasks: int, before: int) -> None:
        """Begin a stage of so many tasks, of which some were done before."""
        with self._lock:
            self._total, self._ended, self._running = tasks - before, 0, {}
        self.say(f"{name}: {tasks} task{'s' * (tasks != 1)}" + (f", {before} of them done before" if before else ""))

    def report(self, task: str, said: Any, ended: bool = False) -> None:
        """Take what a task says of itself; with `ended` it is over."""
        with self._lock:
            before = self._running.pop(task, None)
            if ended:
                self._ended += 1
            elif isinstance(said, Said):
                self._running[task] = said
        if ended or not isinstance(said, Said) or (before is not None and before.step >= said.step):
            return
        if self._sink is not None:
            for trial, loss in said.losses.items():
                values = {"loss": loss, "tokens_per_second": said.tokens_per_second}
                self._sink.log(self._labels.get(trial, trial), said.tokens, values)
        self._show_plain()

    def _text(self) -> Text:
        with self._lock:
            running, ended, total = dict(self._running), self._ended, self._total
        lines = [f"  {ended} of {total} done"]
        for said in running.values():
            losses = "  ".join(f"{self._labels.get(trial, trial)} {loss:.3f}" for trial, loss in said.losses.items())
            lines.append(
                f"  {said.tokens:,} of {said.budget:,} tokens  {said.tokens_per_second:,.0f}/s  "
                f"{clock_time(said.seconds_left)} left  loss {losses}"
            )
        return Text("\n".join(lines))


SINKS = ("trackio", "wandb", "tensorboard")
MODULES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


def sink_of(kind: str, *, project: str, folder: str, config: Mapping[str, Mapping[str, Any]]) -> Sink:
    """The sink of this name. `config`: what is said of each trial by its label. Nothing is imported before this.

    Raises ResourceMissing where its package is absent.
    """
    try:
        module = importlib.import_module(MODULES[kind])
    except ImportError as error:
        raise ResourceMissing(f"--log {kind}: {kind} is not installed ({error}). pip install {kind}") from error
    if kind == "tensorboard":
        return TensorBoard(module, folder)
    return Runs(module, project, config, {"reinit": "create_new"} if kind == "wandb" else {})


class Runs:
    """wandb, and trackio that has its interface: a run for each trial, begun with its first numbers."""

    def __init__(
        self, module: Any, project: str, config: Mapping[str, Mapping[str, Any]], more: Mapping[str, Any]
    ) -> None:
        self._module, self._project, self._config, self._more = module, project, config, more
        self._runs: dict[str, Any] = {}

    def log(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Log to the trial's run."""
        if trial not in self._runs:
            config = dict(self._config.get(trial, {}))
            self._runs[trial] = self._module.init(project=self._project, name=trial, config=config, **self._more)
        self._runs[trial].log(dict(values), step=step)

    def close(self) -> None:
        """Finish every run."""
        for run in self._runs.values():
            run.finish()


class TensorBoard:
    """A writer for each trial below one folder."""

    def __init__(self, module: Any, folder: str) -> None:
        self._module, self._folder = module, folder
        self._writers: dict[str, Any] = {}

    def log(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Write one scalar for each number."""
        if trial not in self._writers:
            self._writers[trial] = self._module.SummaryWriter(f"{self._folder}/{trial}")
        for name, value in values.items():
            self._writers[trial].add_scalar(name, value, step)

    def close(self) -> None:
        """Close every writer."""
        for writer in self._writers.values():
            writer.close()
