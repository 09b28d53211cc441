"""Java is found and looked at before it is needed, and what is wrong with it is told with what mends it."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from configs.engines import EngineConfig, EnginesConfig, JavaConfig
from core.errors import UsageError
from engines.jvm import (
    check_jar,
    drop_old_pieces,
    find_java,
    jar_command,
    java_version,
    preset_flags,
    recordings,
    screen_of,
)
from engines.launch import daemon_count, plan_launch


def program(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def java_that_says(path: Path, text: str, code: int = 0) -> str:
    return program(path, f"echo '{text}' >&2; exit {code}")


def jar(
    path: Path, manifest: str | None = "Manifest-Version: 1.0\r\nMain-Class: forge.view.Main\r\n"
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        if manifest is not None:
            archive.writestr("META-INF/MANIFEST.MF", manifest)
    return path


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Be a machine on which this is the only Java, and nothing else is installed."""
    found = java_that_says(tmp_path / "bin" / "java", 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for tool in ("sh", "echo"):
        where = shutil.which(tool, path="/usr/bin:/bin")
        assert where is not None
        (tmp_path / "bin" / tool).symlink_to(where)
    return found


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -X\nopenjdk version "24-ea" 2025', 24),
    ],
)
def test_versions_are_read_as_they_are_told(said: str, version: int, tmp_path: Path) -> None:
    assert java_version(java_that_says(tmp_path / "java", said)) == version


@pytest.mark.parametrize(
    ("said", "code"), [("", 0), ("Error: could not find libjvm.so", 1), ('version "x"', 0)]
)
def test_what_is_no_java_is_told(said: str, code: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no Java"):
        java_version(java_that_says(tmp_path / "java", said, code))


def test_java_is_found_where_it_was_set_then_at_home_then_on_the_path(
    java: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_java(JavaConfig()) == java
    at_home = java_that_says(tmp_path / "home" / "bin" / "java", 'version "21.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java(JavaConfig()) == at_home
    assert find_java(JavaConfig(java=java)) == java


def test_no_java_and_one_too_old_say_what_to_install(java: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Java 17, and java.least_version is 21\n.*openjdk-21-jre-headless"):
        find_java(JavaConfig(least_version=21))
    Path(java).unlink()
    with pytest.raises(UsageError, match=r"no java is on the PATH\n.*apt install openjdk-17-jre-headless"):
        find_java(JavaConfig())
    with pytest.raises(UsageError, match="is no program"):
        find_java(JavaConfig(java=str(tmp_path / "none")))


def test_only_a_jar_with_a_main_class_passes(tmp_path: Path) -> None:
    check_jar(jar(tmp_path / "good.jar"))
    with pytest.raises(UsageError, match="there is no such file"):
        check_jar(tmp_path / "none.jar")
    with pytest.raises(UsageError, match="it is a folder"):
        check_jar(tmp_path)
    with pytest.raises(UsageError, match="is no jar"):
        check_jar(jar(tmp_path / "empty.jar", None))
    (tmp_path / "text.jar").write_text("<html>404</html>")
    with pytest.raises(UsageError, match="is no jar"):
        check_jar(tmp_path / "text.jar")
    with pytest.raises(UsageError, match="names no Main-Class"):
        check_jar(jar(tmp_path / "library.jar", "Manifest-Version: 1.0\r\nX-Main-Class: a\r\n"))


def test_presets_are_sized_by_the_memory_of_one_daemon() -> None:
    assert preset_flags("none", 4096) == ()
    throughput = preset_flags("throughput", 1500)
    assert {"-Xmx1500m", "-Xms1500m", "-XX:MaxGCPauseMillis=50", "-Djava.awt.headless=true"} <= set(
        throughput
    )
    container = preset_flags("container", 6144)
    regions = "-XX:G1HeapRegionSize=16m"
    assert {"-Xmx6144m", "-Xms4096m", "-XX:InitiatingHeapOccupancyPercent=35", regions} <= set(container)
    assert regions not in preset_flags("container", 512)
    assert container.count("--add-opens") == 5


def test_the_command_has_its_parts_in_javas_order(java: str, tmp_path: Path) -> None:
    config = JavaConfig(preset="none", flags=("-Dx=1",), record=True)
    command = jar_command(config, jar(tmp_path / "a.jar"), ("daemon", "-p", "{port}"))
    assert command[0] == java
    assert command[1].startswith("-XX:StartFlightRecording=filename={room}/recording.jfr,")
    assert "maxsize=64m" in command[1]
    assert command[2] == "-XX:FlightRecorderOptions=repository={room}/recording"
    assert command[3:] == ("-Dx=1", "-jar", str(tmp_path / "a.jar"), "daemon", "-p", "{port}")


def test_of_what_killed_jvms_have_recorded_the_newest_is_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "older")):
        (tmp_path / "recording" / name).mkdir(parents=True)
        (tmp_path / "recording" / name / "piece.jfr").write_text("piece")
        os.utime(tmp_path / "recording" / name, (1000 - age, 1000 - age))

    drop_old_pieces(tmp_path)
    drop_old_pieces(tmp_path / "elsewhere")

    assert [path.name for path in (tmp_path / "recording").iterdir()] == ["new"]
    assert (tmp_path / "recording" / "new" / "piece.jfr").exists()


def test_recordings_are_found_in_the_rooms_of_daemons(tmp_path: Path) -> None:
    for number, text in ((0, "whole"), (1, "")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "recording.jfr").write_text(text)

    assert recordings(tmp_path) == [(f"{tmp_path}/0/recording.jfr", 5), (f"{tmp_path}/1/recording.jfr", 0)]
    assert recordings(tmp_path / "elsewhere") == []


def test_a_virtual_screen_is_wrapped_around_it_or_said_to_be_missing(java: str, tmp_path: Path) -> None:
    config = JavaConfig(preset="none", virtual_screen=True)
    with pytest.raises(UsageError, match="apt install xvfb"):
        jar_command(config, jar(tmp_path / "a.jar"), ())
    wrapper = program(tmp_path / "bin" / "xvfb-run", "")
    with pytest.raises(UsageError, match="xauth is not on the PATH"):
        jar_command(config, tmp_path / "a.jar", ())
    program(tmp_path / "bin" / "xauth", "")
    assert jar_command(config, tmp_path / "a.jar", ())[:5] == (wrapper, "-a", "-n", "{screen}", java)
    assert screen_of(0) != screen_of(1)


def test_a_launch_fills_in_its_places_and_changes_with_what_is_started(java: str, tmp_path: Path) -> None:
    config = EnginesConfig(
        engine=EngineConfig(jar=str(jar(tmp_path / "a.jar"))), java=JavaConfig(preset="container")
    )
    launch = plan_launch(config)
    command = launch.command(3, 17_174, tmp_path / "room")
    assert command[-3:] == ["daemon", "-p", "17174"]
    assert f"-Xlog:gc*:file={tmp_path}/room/gc.log:time,uptime:filecount=4,filesize=4m" in command
    assert launch.digest() == plan_launch(config).digest()
    other = config.model_copy(update={"java": JavaConfig(preset="container", memory_mb=512)})
    assert plan_launch(other).digest() != launch.digest()


def test_the_environment_passes_on_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "so")
    monkeypatch.delenv("MISSING", raising=False)
    engine = EngineConfig(command=("sh", "{port}"), environment={"GIVEN": None, "SET": "here"})
    assert plan_launch(EnginesConfig(engine=engine)).environment == {"GIVEN": "so", "SET": "here"}
    missing = EngineConfig(command=("sh", "{port}"), environment={"MISSING": None})
    with pytest.raises(UsageError, match="cannot be given MISSING"):
        plan_launch(EnginesConfig(engine=missing))


def test_no_program_is_told() -> None:
    with pytest.raises(UsageError, match="there is no program to run"):
        plan_launch(EnginesConfig())


def test_auto_leaves_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, count in ((1, 1), (2, 1), (3, 1), (16, 14)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert daemon_count(EnginesConfig()) == count
    assert daemon_count(EnginesConfig(engine=EngineConfig(count=5))) == 5


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A\0"])
def test_names_of_variables_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="environment"):
        EngineConfig.model_validate_json(json.dumps({"environment": {name: "x"}}))
