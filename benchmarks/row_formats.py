"""How should rows lie on disk? .npz stored and compressed beside Parquet, on the rows of a file of games.

Usage: python benchmarks/row_formats.py GAMES.trmph SIZE [ROUNDS]
Parquet takes part where pyarrow can be imported; it is no dependency of tamen. Prints one JSON object: for each format
bytes a row, and rows a second of processor time to write into memory and to read from it, medians over rounds in which
all take turns. Rows are shuffled first, as the learner gets them: neighbours of one game would compress better.
"""

import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.positions import Selection, cut_rows

Rows = dict[str, np.ndarray]


def stored(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **rows)
    return buffer.getvalue()


def compressed(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **rows)
    return buffer.getvalue()


def load(data: bytes) -> Rows:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file}


def parquet(compression: str) -> tuple[Callable[[Rows], bytes], Callable[[bytes], Rows]]:
    """Return a writer and a reader; stones are one value of fixed length in each row."""
    import pyarrow as pa  # noqa: PLC0415 - only where it is installed
    from pyarrow import parquet as files  # noqa: PLC0415

    def write(rows: Rows) -> bytes:
        stones = np.ascontiguousarray(rows["stones"]).reshape(len(rows["stones"]), -1)
        kind = pa.binary(stones.shape[1])
        column = pa.Array.from_buffers(kind, len(stones), [None, pa.py_buffer(stones)])
        table = pa.table({"stones": column} | {name: rows[name] for name in rows if name != "stones"})
        buffer = io.BytesIO()
        files.write_table(table, buffer, compression=compression)
        return buffer.getvalue()

    def read(data: bytes) -> Rows:
        table = files.read_table(pa.BufferReader(data), use_threads=False).combine_chunks()
        packed = table["stones"].chunk(0)
        stones = np.frombuffer(packed.buffers()[1], np.uint8).reshape(len(packed), 2, -1)
        return {"stones": stones} | {
            name: table[name].to_numpy() for name in table.column_names if name != "stones"
        }

    return write, read


def main() -> None:
    text, size = Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    rows = cut_rows(text, size, Selection(), source=sys.argv[1])
    count = len(rows["game"])
    order = np.random.default_rng(0).permutation(count)
    rows = {name: column[order] for name, column in rows.items()}
    formats = {"npz": (stored, load), "npz_compressed": (compressed, load)}
    try:
        formats |= {f"parquet_{name}": parquet(name) for name in ("none", "snappy", "zstd")}
    except ImportError:
        sys.stderr.write("pyarrow is not installed: no Parquet\n")
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in formats}
    for _ in range(rounds):
        for name, (write, read) in formats.items():
            began = time.process_time()
            data = write(rows)
            written = time.process_time()
            back = read(data)
            taken[name].append((written - began, time.process_time() - written, len(data)))
            assert all(np.array_equal(back[column], rows[column]) for column in rows)
    result = {
        name: {
            "bytes_per_row": round(times[0][2] / count, 1),
            "rows_written_per_s": round(count / statistics.median(one[0] for one in times)),
            "rows_read_per_s": round(count / statistics.median(one[1] for one in times)),
        }
        for name, times in taken.items()
    }
    print(json.dumps({"rows": count, "rounds": rounds, **result}))


if __name__ == "__main__":
    main()
