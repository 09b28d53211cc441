"""A GTP engine for tests, without any rules: it plays the first point that is free.

    python small_gtp_engine.py LOG [BEHAVIOUR]

Commands are written to LOG. BEHAVIOUR: `taken` plays a point that is taken, `resign` resigns, `refuses-once` refuses
the first move, `no-board` refuses any board, `dies` ends at the first move that it is asked for, `dies-once` does so
unless LOG tells that it has done so before.
"""

import sys


def main() -> None:
    log = open(sys.argv[1], "a+")  # noqa: SIM115
    behaviour = sys.argv[2] if len(sys.argv) > 2 else ""
    log.seek(0)
    if behaviour == "dies-once":
        behaviour = "" if "genmove" in log.read() else "dies"
    points: list[str] = []
    taken: list[str] = []
    for line in sys.stdin:
        number, name, *words = line.split()
        print(name, *words, file=log, flush=True)
        told, mark = "", "="
        if name == "list_commands":
            told = "boardsize\nclear_board\nplay\ngenmove\nset_random_seed"
        elif name == "boardsize" and behaviour == "no-board":
            told, mark = "unacceptable size", "?"
        elif name == "boardsize":
            size = int(words[0])
            points = [f"{column}{row + 1}" for row in range(size) for column in "abcdefgh"[:size]]
        elif name == "clear_board":
            taken = []
        elif name == "play":
            taken.append(words[1])
        elif name == "genmove" and behaviour == "refuses-once":
            told, mark, behaviour = "not now", "?", ""
        elif name == "genmove":
            if behaviour == "dies":
                sys.exit("it was not to be")
            told = next(
                point for point in points if (point in taken) == (behaviour == "taken" and taken != [])
            )
            if behaviour == "resign":
                told = "resign"
            taken.append(told)
        print(f"{mark}{number} {told}\n", flush=True)


if __name__ == "__main__":
    main()
