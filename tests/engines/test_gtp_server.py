"""The GTP server: what HexGui and GoGui ask, and that no input ends it."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.gtp_server import GtpServer, LineSplitter, serve
from engines.lines import MAX_LINE_BYTES
from tests.engines.gtp_parties import RandomMind, WaitingMind, end_of, table_of

HEXGUI = ["name", "version", "hexgui-analyze_commands", "boardsize 5 5", "clear_board", "showboard"]
"""What HexGui sends when it connects."""
GOGUI = [
    "list_commands",
    "protocol_version",
    "name",
    "version",
    "gogui-analyze_commands",
    "boardsize 5",
    "komi 7.5",
]


def server_of(game: str, mind: RandomMind | None = None) -> GtpServer:
    return GtpServer(table_of(game, mind), version="1.2")


def talk(server: GtpServer, *lines: str) -> list[str]:
    """Answer lines; return each response without its end."""
    answers = [server.answer(line) for line in lines]
    assert all(answer.endswith("\n\n") for answer in answers)
    return [answer.removesuffix("\n\n") for answer in answers]


@pytest.mark.parametrize(
    ("game", "greeting"), [("hex5", HEXGUI), ("hex5-swap", HEXGUI), ("open_spiel:go(board_size=5)", GOGUI)]
)
def test_what_a_gui_sends_first_is_accepted(game, greeting):
    assert [answer[0] for answer in talk(server_of(game), *greeting)] == ["="] * len(greeting)


def test_a_game_as_hexgui_plays_it():
    server = server_of("hex3")
    move = talk(server, "play black b2", "genmove white")[1].removeprefix("= ")
    assert move in server_of("hex3")._table.legal()
    assert move not in talk(server, "all_legal_moves")[0]
    assert talk(server, "undo", "undo", "undo") == ["=", "=", "? cannot undo: no move was played"]
    moves = [f"play {move}" for move in ("b a1", "w b1", "b a2", "w b2", "b a3")]
    assert talk(server, *moves) == ["="] * 5
    assert talk(server, "final_score", "genmove w") == ["= B+", "= resign"]


def test_ids_come_back():
    assert talk(server_of("hex3"), "12 protocol_version", "13 nonsense", "14") == [
        "=12 2",
        "?13 unknown command",
        "?14 unknown command",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("boardsize 11 11", "? unacceptable size"),
        ("boardsize 5", "? unacceptable size"),
        ("boardsize", "? syntax error"),
        ("boardsize x", "? syntax error"),
        ("boardsize ٣ ٣", "? syntax error"),
        ("boardsize 99999 3", "? syntax error"),
        ("play", "? syntax error"),
        ("play black", "? syntax error"),
        ("play blue a1", "? invalid color"),
        ("play b z9", "? illegal move"),
        ("genmove", "? syntax error"),
        ("komi", "? syntax error"),
        ("komi much", "? syntax error"),
        ("known_command", "? syntax error"),
        ("param_game allow_swap 1", "? unacceptable parameter"),
        ("final_score", "? cannot score"),
        ("undo", "? cannot undo"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(line, told):
    answer = talk(server_of("hex3"), line)[0]
    assert answer.startswith(told)
    assert "\n" not in answer


def test_the_rules_are_the_models():
    assert talk(server_of("hex3-swap"), "param_game", "param_game allow_swap 1") == [
        "= [bool] allow_swap 1",
        "=",
    ]
    go = server_of("open_spiel:go(board_size=5,komi=5.5)")
    assert [answer[0] for answer in talk(go, "komi 5.5", "komi 6.5", "boardsize 5")] == ["=", "?", "="]
    assert talk(server_of("hex3"), "komi 6.5") == ["="]


def test_what_is_listed_is_known_and_answered():
    server = server_of("hex3")
    names = talk(server, "list_commands")[0].removeprefix("= ").split("\n")
    assert {"play", "genmove", "quit", "policy"} <= set(names)
    assert talk(server, *(f"known_command {name}" for name in names)) == ["= true"] * len(names)
    assert talk(server, "known_command mate") == ["= false"]
    analyses = talk(server, "gogui-analyze_commands")[0].removeprefix("= ").split("\n")
    assert {line.split("/")[2] for line in analyses} <= set(names)


def test_analysis_speaks_of_points_and_leaves_the_board_alone():
    server = server_of("hex3-swap")
    talk(server, "play black a1")
    board = talk(server, "showboard")
    policy, value, search = talk(server, "policy", "value", "search")
    numbers = dict(zip(policy.split()[1::2], map(float, policy.split()[2::2]), strict=True))
    assert set(numbers) == set(server._table.vertices.names[1:9])  # neither the stone nor the swap
    assert value == "= value +0.500 for white"
    label, influence, text = search.removeprefix("= ").split("\n")
    assert influence.startswith("INFLUENCE b1 1.000 ")
    assert label.startswith("LABEL b1 2 ")
    assert text.startswith("TEXT best ")
    assert text.endswith("value +0.500 for white, 18 simulations")
    assert talk(server, "showboard") == board


def test_a_mistake_of_the_mind_does_not_end_the_game(caplog: pytest.LogCaptureFixture):
    class Failing(RandomMind):
        def think(self, *arguments, **named):
            raise ZeroDivisionError

    server = server_of("hex3", Failing())
    assert (
        talk(server, "genmove black", "play black a1", "showboard")[0] == "? it failed; see what was logged"
    )
    assert "ZeroDivisionError" in caplog.text
    assert server._table.to_play == 1


@given(
    st.lists(
        st.text(max_size=30)
        | st.from_regex(r"[0-9]{0,2} ?(play|genmove|undo|boardsize|search) ?[bw]? ?[a-d][0-5]?"),
        max_size=8,
    )
)
def test_any_text_has_at_most_one_response(lines):
    server = server_of("hex3")
    for line in lines:
        answer = server.answer(line)
        assert answer == "" or (answer[0] in "=?" and answer.endswith("\n\n") and answer.count("\n\n") == 1)


def pumped(game: str, data: bytes, mind: RandomMind | None = None) -> bytes:
    """Serve all of `data`, and return all responses."""
    commands, to_server = os.pipe()
    from_server, responses = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(to_server, data), os.close(to_server)))
    writer.start()
    serve(server_of(game, mind), commands, responses)
    os.close(responses)
    end_of(writer)
    with os.fdopen(from_server, "rb") as file:
        told = file.read()
    os.close(commands)
    return told


def test_bad_input_is_answered_and_what_follows_is_served():
    bad = [
        b"name\r",
        b"",
        b"  # a comment",
        b"\xff\xfe name",
        b"x" * (MAX_LINE_BYTES + 5),
        b"\x00\x01\x02",
        b"protocol_version",
    ]
    told = pumped("hex3", b"\n".join(bad) + b"\n").decode()
    assert told.split("\n\n") == [
        "= tamen random at hex3",
        "? not UTF-8",
        "? line too long",
        "= 2",
        "",
    ]


def test_after_quit_nothing_is_read():
    assert pumped("hex3", b"1 quit\n2 name\n") == b"=1\n\n"


def test_the_last_line_may_lack_its_end():
    assert pumped("hex3", b"1 protocol_version\n2 protocol_version") == b"=1 2\n\n=2 2\n\n"
    assert pumped("hex3", b"protocol_version\n\xff") == b"= 2\n\n? not UTF-8\n\n"
    assert pumped("hex3", b"x" * (MAX_LINE_BYTES + 5)) == b"? line too long\n\n"


def test_a_sequence_is_played_as_gogui_tells_it():
    server = server_of("open_spiel:go(board_size=5)")
    assert (
        talk(server, "gogui-play_sequence b c3 w PASS b d4", "undo", "undo", "undo", "undo")[:4] == ["="] * 4
    )
    assert talk(server, "gogui-play_sequence") == ["="]
    for words in ("b", "b c3 w", "b c3 w c3", "b c3 blue a1"):
        assert talk(server, f"gogui-play_sequence {words}")[0].startswith("? ")
        assert talk(server, "undo") == ["? cannot undo: no move was played"]


def test_a_game_of_go_ends_as_gogui_expects():
    server = server_of("open_spiel:go(board_size=5,komi=0.5)")
    talk(server, "play b c3", "play w pass", "play b pass")
    assert talk(server, "genmove w", "play b pass", "final_score") == ["= pass", "=", "= B+24.5"]


@pytest.mark.parametrize("interrupt", ["# interrupt", "# gogui-interrupt"])
def test_an_interrupt_hurries_the_command_at_work(interrupt):
    mind = WaitingMind()
    told = pumped("hex3", f"1 genmove b\n{interrupt}\n2 protocol_version\n".encode(), mind)
    assert told.startswith(b"=1 ")
    assert told.endswith(b"=2 2\n\n")


def test_an_interrupt_hurries_nothing_that_comes_after_it():
    seen = []

    class Looking(RandomMind):
        def think(self, *arguments, hurried, **named):
            seen.append(hurried())
            return super().think(*arguments, hurried=hurried, **named)

    server = server_of("hex3", Looking())
    talk(server, "name", "name")
    server.hurry(2)
    talk(server, "genmove b")
    server.hurry(4)
    talk(server, "reg_genmove w", "reg_genmove w")
    assert seen == [False, True, False]


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 9), max_size=6))
def test_lines_are_the_same_however_their_bytes_come(lines, cuts):
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter()
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    found = [line for piece in [*pieces, data] for line in splitter.feed(piece)]
    assert len(found) == len(lines)
    for raw, line in zip(lines, found, strict=True):
        if isinstance(line, UsageError):
            with pytest.raises(UnicodeDecodeError):
                raw.decode()
        else:
            assert line == raw.removesuffix(b"\r").decode()


def test_a_long_line_is_one_error_and_keeps_no_more_than_a_line():
    splitter = LineSplitter()
    piece = b"x" * 50_000
    found = [line for _ in range(20) for line in splitter.feed(piece)]
    found += splitter.feed(b"\nname\n")
    assert [getattr(line, "what", line) for line in found] == ["line too long", "name"]
    exactly = b"y" * MAX_LINE_BYTES
    assert list(LineSplitter().feed(exactly + b"\n")) == [exactly.decode()]
