"""What tells one program from another, wherever its files lie."""

from pathlib import Path

import pytest

from configs.engines import EngineConfig, EnginesConfig, GamesConfig
from engines.terms import MOST_CHANGES, TermsHistory, terms_of


def of_jar(jar: Path) -> EnginesConfig:
    return EnginesConfig(engine=EngineConfig(jar=str(jar)))


def test_a_jar_may_be_moved_and_not_be_another(tmp_path: Path) -> None:
    first, moved, other = (
        tmp_path / "a" / "forge.jar",
        tmp_path / "b" / "forge.jar",
        tmp_path / "c" / "forge.jar",
    )
    for jar, content in ((first, "one"), (moved, "one"), (other, "two")):
        jar.parent.mkdir()
        jar.write_text(content)
    assert terms_of(of_jar(first)) == terms_of(of_jar(moved))
    assert terms_of(of_jar(first)).program == "forge.jar daemon -p {port}"
    assert terms_of(of_jar(first)).program_digest != terms_of(of_jar(other)).program_digest


def test_files_of_a_command_count_by_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "daemon").write_text("one")
    config = EnginesConfig(engine=EngineConfig(command=("./daemon", "{port}")))
    before = terms_of(config)
    inside = EngineConfig(command=("./daemon", "{port}"), folder=str(tmp_path))
    monkeypatch.chdir("/")
    assert terms_of(EnginesConfig(engine=inside)) == before
    (tmp_path / "daemon").write_text("two")
    assert terms_of(EnginesConfig(engine=inside)) != before
    assert before.program == "daemon {port}"


def test_how_games_are_asked_for_counts_and_how_they_are_handed_out_does_not() -> None:
    engine = EngineConfig(command=("cards", "{port}"))
    given = [
        EnginesConfig(engine=engine, games=games)
        for games in (
            GamesConfig(),
            GamesConfig(connections=7, tries=1),
            GamesConfig(extra=("-x",)),
            GamesConfig(game_seconds=7),
        )
    ]
    plain, handed_out, extra, seconds = map(terms_of, given)
    assert plain == handed_out
    assert len({plain, extra, seconds}) == 3


def test_the_newest_changes_are_kept() -> None:
    history = TermsHistory()
    for number in range(MOST_CHANGES + 5):
        history.add({"program": number}, games=number)
    assert len(history.changes) == MOST_CHANGES
    assert history.changes[-1] == "after 24 games: program 23, then 24"
