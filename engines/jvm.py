"""How Java is found, looked at and told to run a jar: flags by presets, a screen where one is wanted, a recording."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from configs.engines import JavaConfig, Preset
from core.errors import UsageError
from engines.errors import shown

VERSION_SECONDS = 60.0
"""For `java -version`; a busy machine takes some."""
LARGE_HEAP_MB = 4096
INITIAL_SHARE = 2 / 3
"""Of a container's heap, what is taken at the start."""
FIRST_SCREEN = 100
"""Number of the first daemon's virtual screen; those of people begin at 0."""
RECORDING = "recording.jfr"
RECORDING_MB = 64
"""Of a flight recording; what is older is dropped."""
_PIECES = "recording"
_SCREENS_APART = 10
_MOST_MANIFEST_BYTES = 1 << 20
_VERSION = re.compile(r'version "([0-9]{1,4})(?:\.([0-9]{1,4}))?')
_OPENED = (
    "java.base/java.lang",
    "java.base/java.lang.reflect",
    "java.base/java.text",
    "java.base/java.util",
    "java.desktop/java.awt.font",
)
"""What libraries that write objects as XML look into by reflection."""
_HEADLESS = "-Djava.awt.headless=true"


def preset_flags(preset: Preset, memory_mb: int) -> tuple[str, ...]:
    """Return the flags of a preset for one daemon with a heap of `memory_mb`; `{room}` is the daemon's folder.

    `throughput` fixes the heap, so that it is never resized, and collects with short pauses. `container` grows to its
    limit, bounds metaspace, begins to collect early, and keeps a log of that of at most 16 MB.
    """
    if preset == "none":
        return ()
    if preset == "throughput":
        return (
            f"-Xmx{memory_mb}m",
            f"-Xms{memory_mb}m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=50",
            "-XX:+ParallelRefProcEnabled",
            "-XX:+UseStringDeduplication",
            "-XX:+OptimizeStringConcat",
            _HEADLESS,
        )
    return (
        f"-Xmx{memory_mb}m",
        f"-Xms{round(memory_mb * INITIAL_SHARE)}m",
        "-XX:+UseG1GC",
        # Of a smaller heap regions of this size would be so few that the collector has hardly a choice.
        *(("-XX:G1HeapRegionSize=16m",) if memory_mb >= LARGE_HEAP_MB else ()),
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:G1ReservePercent=15",
        "-XX:MaxMetaspaceSize=256m",
        "-Xlog:gc*:file={room}/gc.log:time,uptime:filecount=4,filesize=4m",
        *(word for module in _OPENED for word in ("--add-opens", f"{module}=ALL-UNNAMED")),
        _HEADLESS,
    )


def jar_command(config: JavaConfig, jar: Path, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that runs `jar`, with `{port}`, `{room}` and `{screen}` to be filled in.

    Raises:
        UsageError: when Java, the jar, or xvfb-run is missing or of no use; it says what to install or change.
    """
    java = find_java(config)
    check_jar(jar)
    screen: tuple[str, ...] = ()
    if config.virtual_screen:
        # Those that are started at the same moment would choose the same, so each begins to look elsewhere.
        screen = (_xvfb_run(), "-a", "-n", "{screen}")
    recording = (
        f"-XX:StartFlightRecording=filename={{room}}/{RECORDING},dumponexit=true,settings=profile"
        f",maxsize={RECORDING_MB}m",
        # In /tmp, as by itself, the pieces of a JVM that is killed would stay for ever.
        f"-XX:FlightRecorderOptions=repository={{room}}/{_PIECES}",
    )
    return (
        *screen,
        java,
        *preset_flags(config.preset, config.memory_mb),
        *(recording if config.record else ()),
        *config.flags,
        "-jar",
        str(jar.resolve()),
        *arguments,
    )


def recordings(folder: Path) -> list[tuple[str, int]]:
    """Return path and bytes of the flight recordings of the engines in `folder`; 0 until the recorded JVM ends."""
    found = sorted(folder.glob(f"*/{RECORDING}"))
    return [(str(path), path.stat().st_size) for path in found]


def drop_old_pieces(room: Path) -> None:
    """Delete, before a JVM starts in `room`, what killed ones have left of their recordings there, but the newest."""
    killed = sorted((room / _PIECES).glob("*/"), key=lambda folder: folder.stat().st_mtime)
    for folder in killed[:-1]:
        shutil.rmtree(folder, ignore_errors=True)


def screen_of(number: int) -> int:
    """Return where the daemon `number` begins to look for a free virtual screen."""
    return FIRST_SCREEN + _SCREENS_APART * number


def find_java(config: JavaConfig) -> str:
    """Return the path of the Java that `config` names: its `java`, else that of JAVA_HOME, else that on the PATH.

    Raises:
        UsageError: when there is none, or it is older than `least_version`.
    """
    home = os.environ.get("JAVA_HOME")
    wanted = config.java or (f"{home}/bin/java" if home else "java")
    java = shutil.which(wanted)
    package = f"openjdk-{config.least_version}-jre-headless"
    install = f"install one (on Debian: apt install {package}), or set java.java=/path/to/java"
    if java is None:
        raise UsageError(
            "there is no Java to run the jar",
            why=f"{wanted} is no program" if "/" in wanted else f"no {wanted} is on the PATH",
            fix=install,
        )
    version = java_version(java)
    if version < config.least_version:
        raise UsageError(
            f"{java} is too old",
            why=f"it is Java {version}, and java.least_version is {config.least_version}",
            fix=install,
        )
    return java


def java_version(java: str) -> int:
    """Return the feature version of a Java: 8 for 1.8.0_402, 17 for 17.0.15. Raises UsageError when it tells none."""
    try:
        done = subprocess.run(
            [java, "-version"],
            capture_output=True,
            check=False,
            timeout=VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_java(java, str(error)) from error
    told = (done.stderr + done.stdout).decode("utf-8", errors="replace")
    if done.returncode != 0 or (found := _VERSION.search(told)) is None:
        raise _no_java(java, f"`{java} -version` ended with code {done.returncode} and said {shown(told)}")
    return int(found[2]) if found[1] == "1" and found[2] else int(found[1])


def check_jar(jar: Path) -> None:
    """Raise UsageError unless `jar` is one that `java -jar` can start."""
    if not jar.is_file():
        raise UsageError(
            f"{jar} cannot be started",
            why="it is a folder" if jar.is_dir() else "there is no such file",
            fix="give the path of the daemon's jar with engine.jar=…",
        )
    try:
        with zipfile.ZipFile(jar) as archive, archive.open("META-INF/MANIFEST.MF") as file:
            manifest = file.read(_MOST_MANIFEST_BYTES)
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UsageError(
            f"{jar} is no jar",
            why=f"it has no manifest that could be read: {error}",
            fix="get or build it again",
        ) from error
    if b"\nmain-class:" not in b"\n" + manifest.lower():
        raise UsageError(
            f"{jar} is no program",
            why="its manifest names no Main-Class",
            fix="name the jar with everything in it, or use engine.command with java -cp … and the class",
        )


def _xvfb_run() -> str:
    found = shutil.which("xvfb-run")
    if found is None or shutil.which("xauth") is None:
        raise UsageError(
            "there is no virtual screen",
            why=f"{'xauth' if found else 'xvfb-run'} is not on the PATH, and java.virtual_screen is set",
            fix="install it (on Debian: apt install xvfb xauth), or set java.virtual_screen=false",
        )
    return found


def _no_java(java: str, why: str) -> UsageError:
    return UsageError(f"{java} is no Java", why=why, fix="set java.java to the path of one")
