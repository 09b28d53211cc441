"""What was measured on this machine, for runs to use: how many rows a batch of a network should have at most.

One small JSON file, `$TAMEN_MACHINE_FILE` or `~/.cache/tamen/machine.json`. `tamen bench inference --write` writes it,
a run on Ray reads it when it starts. Without a measurement that fits, a run takes a number that does no harm.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from cluster.run import program
from cluster.run.program import Machine
from configs.schema import BatchRows, NetworkConfig, Positive, PositiveReal, RunConfig, Section
from core.errors import DataError
from core.files import write_atomic

KEPT_TUNINGS = 256
"""The oldest go when there are more."""
CPU_BATCH_ROWS, GPU_BATCH_ROWS = 1024, 8192
"""Where nothing was measured. On a core with AVX2 small networks lose up to a fifth of their best rate by 1024 rows."""


class Tuning(Section):
    """One network measured on one device.

    Attributes:
        device: name of the processor or the GPU.
        asked: the setting network.precision that was measured.
        precision: what it stood for.
        latency_ms: the longest that a batch was allowed to take.
        rates: positions a second by rows of a batch.
        measured_on: the day, as 2026-11-21.
        versions: of the libraries.
    """

    device: str
    game: str
    blocks: Positive
    channels: Positive
    asked: str
    precision: str
    batch_rows: BatchRows
    latency_ms: PositiveReal
    rates: Annotated[dict[int, PositiveReal], Field(min_length=1)]
    measured_on: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _was_measured(self) -> "Tuning":
        if self.batch_rows not in self.rates:
            raise ValueError(f"batches of {self.batch_rows} rows were not measured")
        return self

    @property
    def key(self) -> tuple[str | int, ...]:
        return self.device, self.game, self.blocks, self.channels, self.asked

    def fits(self, device: str, game: str, network: NetworkConfig) -> bool:
        """Whether a network on a device is what was measured. What "auto" stood for may also be asked for by name."""
        shape = (self.device, self.game, self.blocks, self.channels)
        return shape == (device, game, network.blocks, network.channels) and network.precision in (
            self.asked,
            self.precision,
        )


class _Content(Section):
    format: Literal[1] = 1
    tunings: tuple[Tuning, ...] = ()


@dataclass(frozen=True, slots=True)
class Batches:
    """How many rows the servers of a run take at once, at most.

    Attributes:
        why: where that comes from, in one line.
        damaged: whether the machine's file could not be read.
    """

    rows: int
    why: str
    damaged: bool = False


def machine_file() -> Path:
    """Return where the file of this machine lies, whether or not there is one."""
    return Path(os.environ.get("TAMEN_MACHINE_FILE") or Path.home() / ".cache" / "tamen" / "machine.json")


def device_name() -> str:
    """Return the name of the device that networks run on here: the first GPU, or else the processor."""
    gpus = sorted(Path(program.NVIDIA).glob("*/information")) if Machine.here().gpus else []
    file, field = (gpus[0], "Model") if gpus else (Path("/proc/cpuinfo"), "model name")
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == field), os.uname().machine)


def unmeasured_batch_rows() -> int:
    """Return the bound of batches where nothing was measured."""
    return GPU_BATCH_ROWS if Machine.here().gpus else CPU_BATCH_ROWS


def batches_of(config: RunConfig) -> Batches:
    """Return how large the batches of a run on this machine may be: as configured, as measured, or a guess."""
    rows = config.inference.max_batch_rows
    if rows != "auto":
        return Batches(rows, f"batches of at most {rows} rows: the configuration says so")
    file, device, unmeasured = machine_file(), device_name(), unmeasured_batch_rows()
    try:
        tunings = read_tunings(file)
    except DataError as error:
        return Batches(unmeasured, f"batches of at most {unmeasured} rows: {error.what} ({error.why})", True)
    for tuning in reversed(tunings):
        if tuning.fits(device, config.game, config.network):
            when = f"measured on {tuning.measured_on}, says {file}"
            return Batches(tuning.batch_rows, f"batches of at most {tuning.batch_rows} rows: {when}")
    network = config.network
    command = (
        f"tamen bench inference --write --game {config.game} --blocks {network.blocks}"
        f" --channels {network.channels}"
    )
    return Batches(
        unmeasured, f"batches of at most {unmeasured} rows: not measured on {device}; `{command}` does it"
    )


def read_tunings(file: Path) -> tuple[Tuning, ...]:
    """Return what was measured on all devices, newest last; nothing when there is no file.

    Raises:
        DataError: when it cannot be read, or holds something else.
    """
    try:
        return _Content.model_validate_json(file.read_bytes()).tunings
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        else:
            why = error.strerror or str(error)
        raise DataError(
            f"{file} cannot be used",
            why=why,
            fix="delete it, and measure again by `tamen bench inference --write`",
        ) from error


def write_tuning(tuning: Tuning, file: Path) -> None:
    """Put a measurement in the place of an older one of the same; a damaged file is set aside as `….damaged`.

    Raises:
        OSError: when it cannot be written; what was there then stays.
    """
    try:
        others = [other for other in read_tunings(file) if other.key != tuning.key]
    except DataError:
        others = []
        file.replace(file.with_name(f"{file.name}.damaged"))
    content = _Content(tunings=tuple([*others, tuning][-KEPT_TUNINGS:]))
    write_atomic(file, content.model_dump_json(indent=1).encode())
