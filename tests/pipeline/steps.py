"""Steps so small that only what is done around them is tested."""

from pathlib import Path
from typing import Any, NamedTuple

from core.errors import DataError
from core.files import write_atomic
from pipeline.contract import Context, Stopped
from pipeline.executors import Inline
from pipeline.orchestrator import Pipeline, Stage


class Copy(NamedTuple):
    """A file to be made of the files of the steps before."""

    sources: tuple[str, ...]
    target: str
    text: str


def copy(task: Copy) -> int:
    """Write what the sources hold, one after the other, and `text` behind them."""
    data = b"".join(Path(source).read_bytes() for source in task.sources) + task.text.encode()
    write_atomic(Path(task.target), data)
    return len(data)


class SmallStep:
    """Makes `files` files, each of the files of the same number before it; counts how often it ran."""

    def __init__(self, name: str, *needs: str, files: int = 3, text: str = "", **more: Any) -> None:
        self.name = name
        self.needs = needs
        self.settings = {"files": files, "text": text or name, **more}
        self.begun = 0
        self.problem: Exception | None = None

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        self.begun += 1
        context.log("at work")
        tasks = []
        for number in range(self.settings["files"]):
            sources = [str(path / f"{number}.txt") for path in inputs.values()]
            tasks.append(Copy(tuple(sources), str(folder / f"{number}.txt"), self.settings["text"]))
        left = [task for task in tasks if not Path(task.target).exists()]
        for number, _ in context.executor.run(copy, left):
            context.progress(number + 1, len(left), "files")
            if self.problem is not None:
                raise self.problem
            if context.should_stop() and number + 1 < len(left):
                raise Stopped
        return {"files": len(tasks), "note": "all"}


class Around:
    """What surrounds small steps, and what they were heard to say."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.logged: list[str] = []
        self.stop_after = 10**9
        self.context = Context(Inline(), self._progress, self._should_stop, self.logged.append)
        self._done = 0

    def run(self, pipeline: Pipeline, **options: Any) -> dict[str, dict[str, Any]]:
        self.said.clear()
        return pipeline.run(self.context, say=self.said.append, **options)

    def _progress(self, done: float, total: float, unit: str) -> None:
        self._done += 1

    def _should_stop(self) -> bool:
        return self._done >= self.stop_after


def chain(**changed: SmallStep) -> list[Stage]:
    """Return the stages cut, mix and fit, each reading the one before; cut's files are passing ones."""
    steps = {
        "cut": SmallStep("cut"),
        "mix": SmallStep("mix", "cut"),
        "fit": SmallStep("fit", "mix"),
    } | changed
    return [Stage(steps["cut"], passing=("*.txt",)), Stage(steps["mix"]), Stage(steps["fit"])]


DAMAGED = DataError("a shard is damaged", why="a test", fix="none")
