"""The sections that say which engines run on a machine, how Java is started for them, how they are kept alive, and how
games are asked of them.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.schema import Auto, Count, Positive, PositiveReal, Real, Section
from core.errors import UsageError
from core.names import checked_name

MOST_DAEMONS = 256
"""On one machine, spares included."""
PLACES = ("{port}", "{number}", "{room}")
"""What stands in a command for a daemon's port, its number from 0 on, and the folder that it has for itself."""

Preset = Literal["none", "throughput", "container"]
Port = Annotated[int, Field(ge=1024, le=65_535)]
Word = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
VariableName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _plain(name: str) -> str:
    try:
        return checked_name(name, what="engine")
    except UsageError as error:
        raise ValueError(f"{error.what}: {error.why}", error.fix) from error


class EngineConfig(Section):
    """Which program is run, how often, and where.

    It is `command`, a program with its arguments, or the `jar` with `arguments`, started by Java. `{port}` stands for
    the port of 127.0.0.1 on which a daemon has to answer STATUS; the first has `base_port`, others the next that are
    free. `{number}` and `{room}` are its number and a folder of its own. The environment is PATH, HOME, LANG and what
    `environment` gives; null passes on what there is. `count` daemons serve; "auto" is all cores but two. `spares` run
    beside them, and take the place of one that is gone.
    """

    name: Annotated[str, AfterValidator(_plain)] = "engines"
    command: Annotated[tuple[Word, ...], Field(max_length=256)] = ()
    jar: Word | None = None
    arguments: Annotated[tuple[Word, ...], Field(max_length=256)] = ("daemon", "-p", "{port}")
    count: Annotated[int, Field(ge=1, le=MOST_DAEMONS)] | Auto = "auto"
    spares: Annotated[int, Field(ge=0, le=16)] = 0
    base_port: Port = 17_171
    folder: Word | None = None
    environment: dict[VariableName, Word | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one_program(self) -> "EngineConfig":
        if self.command and self.jar is not None:
            raise ValueError("both command and jar are given", "set engine.jar=null, or engine.command=[]")
        words = self.command or self.arguments
        if not any("{port}" in word for word in words):
            raise ValueError(
                f"{' '.join(words)} does not say where the port goes: all daemons would want the same",
                "write {port} where the daemon takes its port",
            )
        return self


class JavaConfig(Section):
    """How Java is started for a `jar`.

    `java` is the program; null: the one on the PATH, of at least `least_version`. A `preset` is a set of flags, sized
    by `memory_mb` for each daemon; `flags` come behind it. With `virtual_screen` it runs under xvfb-run, for programs
    that do not start without a screen. With `record` a flight recording (JFR) is in the daemon's room when it has
    ended.
    """

    java: Word | None = None
    least_version: Annotated[int, Field(ge=8, le=99)] = 17
    preset: Preset = "throughput"
    memory_mb: Annotated[int, Field(ge=64, le=1 << 20)] = 4096
    flags: Annotated[tuple[Word, ...], Field(max_length=64)] = ()
    virtual_screen: bool = False
    record: bool = False


class UpkeepConfig(Section):
    """How daemons are kept alive.

    One has `start_seconds` to answer its first STATUS, and is asked again every `check_seconds`. It has
    `answer_seconds` for that; after `most_silences` in a row it is killed and started again. The published Forge daemon
    answers nothing while it plays ten games: feed it fewer. A restart waits `first_delay_seconds`, doubling with each
    failure within `window_seconds` up to `max_delay_seconds`; after more than `max_failures` of them the daemon is set
    aside. One that is to end gets `grace_seconds`; without a supervisor it ends after `orphan_seconds`. Of what it
    writes at least `log_kb` are kept.
    """

    start_seconds: PositiveReal = 120.0
    check_seconds: PositiveReal = 5.0
    answer_seconds: PositiveReal = 10.0
    most_silences: Positive = 3
    first_delay_seconds: Real = 0.2
    max_delay_seconds: Real = 30.0
    window_seconds: PositiveReal = 300.0
    max_failures: Count = 8
    grace_seconds: Real = 5.0
    orphan_seconds: Annotated[float, Field(ge=1.0, le=86_400.0)] = 120.0
    log_kb: Annotated[int, Field(ge=1, le=1 << 20)] = 4096


class GamesConfig(Section):
    """How games are asked of daemons that speak Forge's protocol.

    There are `connections` to each daemon at a time. Over one that stays open, `batch` games are asked for at once;
    "auto" is as many as the daemon plays at a time, and more when they are short. A game may take `game_seconds`, after
    which the daemon breaks it off, and a decision `decision_seconds`; without an answer `slack_seconds` beyond that it
    has failed. What has failed `tries` times is set aside; after `most_set_aside` such games without one that came to
    its end the run stops. `extra` options stand behind each request. Decisions are written in files of `shard_games`
    games, or of what has come in `shard_seconds`. At a stop, games in play have `stop_seconds` to end.
    """

    connections: Annotated[int, Field(ge=1, le=64)] = 2
    batch: Annotated[int, Field(ge=1, le=1024)] | Auto = "auto"
    game_seconds: Annotated[int, Field(ge=1, le=86_400)] = 120
    decision_seconds: Annotated[int, Field(ge=1, le=86_400)] = 5
    slack_seconds: PositiveReal = 30.0
    tries: Annotated[int, Field(ge=1, le=100)] = 3
    most_set_aside: Positive = 100
    extra: Annotated[tuple[Word, ...], Field(max_length=16)] = ()
    shard_games: Annotated[int, Field(ge=1, le=10_000)] = 64
    shard_seconds: PositiveReal = 5.0
    stop_seconds: PositiveReal = 10.0


class EnginesConfig(Section):
    """The engines of one machine."""

    engine: EngineConfig = EngineConfig()
    java: JavaConfig = JavaConfig()
    upkeep: UpkeepConfig = UpkeepConfig()
    games: GamesConfig = GamesConfig()


ENGINES = Kind(EnginesConfig, PRESETS_FOLDER, whole="engines")  # has no presets of its own
