"""The rows of a window side by side in memory: a batch is one index into one array.

Shapes: `R` rows of a chunk, `n` rows of a batch.
"""

import contextlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np

from core.errors import DataError, TamenError

_PAGE_BYTES = 1 << 20
_LEAST_PAGES = 8
_REVIEW_CHUNKS = 256
"""After so many chunks it is seen whether half the memory would have done."""


class RowArena:
    """Holds chunks by number, the newest at the end; the oldest leave first.

    The columns of a row lie next to each other, as one record. Rows are drawn at random, and each is one place in
    memory to go to, where an array for each column would have ten.

    Rows are counted by arrival, and lie in pages of 2^k rows each. Which page of memory holds which page of rows is
    written in a table, as in a computer's virtual memory: pages that all rows have left are used again, and memory
    grows by a few pages at its end, whatever the order of those before.

    Attributes:
        newest: number of the newest chunk that was ever added; -1 before the first.
    """

    def __init__(self) -> None:
        self._block: _Block | None = None
        self._spans: dict[int, _Span] = {}
        self._first_row = 0
        self._next_row = 0
        self._pages: list[int] = []
        self._free: list[int] = []
        self._peak_pages = 0
        self._chunks_until_review = _REVIEW_CHUNKS
        self._index: _Index | None = None
        self.newest = -1

    @property
    def num_rows(self) -> int:
        return self._next_row - self._first_row

    @property
    def chunks(self) -> list[int]:
        """The numbers of the chunks that are held, rising."""
        return list(self._spans)

    @property
    def memory_bytes(self) -> int:
        """What is set aside for rows; what was never written to takes no memory yet."""
        return self._block.bytes if self._block else 0

    def add(self, number: int, columns: Mapping[str, np.ndarray]) -> None:
        """Copy the rows of a chunk in.

        Args:
            number: of the chunk, above those before.
            columns: arrays [R, ...].

        Raises:
            DataError: when the columns differ from those of the rows that are here, or in length.
            TamenError: when there is no memory for them.
        """
        if number <= self.newest:
            raise ValueError(f"chunk {number} came after chunk {self.newest}")
        kind = _record_type(number, columns)
        if self._block is None:
            self._block = _Block(kind)
        elif kind != self._block.kind:
            raise _foreign(number, kind, self._block.kind)
        rows = len(next(iter(columns.values())))
        span = _Span(self._next_row, self._next_row + rows)
        self._reserve(self._block, span.stop)
        self._write(self._block, span.start, columns)
        self._spans[number] = span
        self._next_row = span.stop
        self.newest, self._index = number, None
        self._review(self._block)

    def drop_before(self, oldest: int) -> None:
        """Forget the chunks whose number is below `oldest`."""
        for number in list(takewhile(lambda number: number < oldest, self._spans)):
            del self._spans[number]
            self._index = None
        if self._block is not None and self._index is None:
            page = self._first_row // self._block.page_rows
            first = next(iter(self._spans.values()), None)
            self._first_row = first.start if first else self._next_row
            left = self._first_row // self._block.page_rows - page
            self._free += self._pages[:left]
            del self._pages[:left]

    def find(self, chunk_ids: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """Return where rows are, int64 [n] for `take`, until the next change; None when one of them is not here.

        Args:
            chunk_ids: int64 [n], the chunk of each row.
            rows: int32 [n], its row in that chunk.
        """
        if self._block is None or not self._spans:
            return None
        if self._index is None:
            self._index = self._indexed(self._block)
        index = self._index
        chunks = chunk_ids - index.first_chunk
        if chunks.min(initial=0) < 0 or chunks.max(initial=0) >= len(index.starts):
            return None
        if not ((rows >= 0) & (rows < index.lengths[chunks])).all():
            return None
        places = index.starts[chunks] + rows
        return index.pages[places >> self._block.page_bits] + (places & (self._block.page_rows - 1))

    def take(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `places`, as `find` gave them: arrays [n, ...] by column, all new."""
        assert self._block is not None, "nothing was found in an empty arena"
        records = self._block.take(places)
        return {name: records[name].copy() for name in self._block.names}

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        if self._block is None:
            return ["rows without memory"] if self._spans or self.num_rows else []
        problems = []
        spans, rows = list(self._spans.values()), self._block.page_rows
        if list(self._spans) != sorted(self._spans) or (self._spans and self.newest < max(self._spans)):
            problems.append(f"the numbers of the chunks do not rise: {list(self._spans)}")
        if any(before.stop != after.start for before, after in pairwise(spans)):
            problems.append("chunks overlap, or there is a gap between them")
        first, stop = (spans[0].start, spans[-1].stop) if spans else (self._next_row, self._next_row)
        if (first, stop) != (self._first_row, self._next_row):
            problems.append(f"chunks do not fill rows {self._first_row} to {self._next_row}")
        needed = -(-self._next_row // rows) - self._first_row // rows
        if len(self._pages) != needed:
            problems.append(f"{self.num_rows} rows lie in {len(self._pages)} pages, not in {needed}")
        if sorted(self._pages + self._free) != list(range(self._block.pages)):
            problems.append("a page is used twice, or neither used nor free")
        return problems

    def _reserve(self, block: "_Block", stop: int) -> None:
        """Have pages for all rows before `stop`."""
        needed = -(-stop // block.page_rows) - self._first_row // block.page_rows
        missing = needed - len(self._pages)
        short = missing - len(self._free)
        if short > 0:
            old = block.pages
            block.resize(old + max(short, _LEAST_PAGES, old // 4))
            # Used from behind: those that had rows before, then the new ones by rising number.
            self._free = [*reversed(range(old, block.pages)), *self._free]
        self._pages += [self._free.pop() for _ in range(missing)]
        self._peak_pages = max(self._peak_pages, len(self._pages))

    def _write(self, block: "_Block", start: int, columns: Mapping[str, np.ndarray]) -> None:
        rows, done = len(next(iter(columns.values()))), 0
        first_page = self._first_row // block.page_rows
        while done < rows:
            page, offset = divmod(start + done, block.page_rows)
            count = min(rows - done, block.page_rows - offset)
            place = self._pages[page - first_page] * block.page_rows + offset
            for name, column in columns.items():
                block.records[name][place : place + count] = column[done : done + count]
            done += count

    def _indexed(self, block: "_Block") -> "_Index":
        numbers = np.fromiter(self._spans, np.int64, len(self._spans))
        spans = np.array([(span.start, span.stop) for span in self._spans.values()], np.int64)
        chunks = numbers - numbers[0]
        starts, lengths = np.zeros((2, chunks[-1] + 1), np.int64)
        # Counted from the first row of the first page.
        starts[chunks] = spans[:, 0] - self._first_row // block.page_rows * block.page_rows
        lengths[chunks] = spans[:, 1] - spans[:, 0]
        pages = np.array(self._pages, np.int64) * block.page_rows
        return _Index(int(numbers[0]), starts, lengths, pages)

    def _review(self, block: "_Block") -> None:
        """Once in a while, give back memory of which less than half was used."""
        self._chunks_until_review -= 1
        if self._chunks_until_review:
            return
        keep = max(self._peak_pages + self._peak_pages // 4, _LEAST_PAGES)
        if 2 * keep < block.pages:
            self._compact(block, keep)
        self._peak_pages = len(self._pages)
        self._chunks_until_review = _REVIEW_CHUNKS

    def _compact(self, block: "_Block", keep: int) -> None:
        """Move what lies beyond the first `keep` pages into free ones among them, and give back the rest."""
        free = [page for page in self._free if page < keep]
        for position, page in enumerate(self._pages):
            if page >= keep:
                self._pages[position] = free.pop()
                block.copy_page(page, self._pages[position])
        self._free = free
        block.resize(keep)
        self._index = None


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a chunk lies among all rows that ever came: from `start` to before `stop`."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Where rows are, as arrays.

    Attributes:
        first_chunk: number of the oldest chunk; the arrays of chunks count from it.
        starts, lengths: int64, first row and rows of each chunk, 0 rows where there is none of that number.
        pages: int64, first record of each page of rows.
    """

    first_chunk: int
    starts: np.ndarray
    lengths: np.ndarray
    pages: np.ndarray


class _Block:
    """Records in memory of their own, which grows and shrinks where it is.

    An array of numpy's would be there twice while it grows; the pages of a mapping are moved by the system instead.
    And huge ones may be asked for: rows drawn at random lie in as many small pages as there are rows, of each of which
    the processor has to look up the place.

    Attributes:
        kind: dtype of a record.
        records: all of them; to be looked up anew after `resize`.
        pages: how many there are, of `page_rows` = 2^`page_bits` records each.
    """

    def __init__(self, kind: np.dtype) -> None:
        self.kind = kind
        self.names = kind.names or ()
        self.page_bits = max(0, (_PAGE_BYTES // kind.itemsize).bit_length() - 1)
        self.page_rows = 1 << self.page_bits
        self.pages = 0
        self.records = np.empty(0, kind)
        self._taken = np.empty(0, kind)
        self._memory: mmap.mmap | None = None

    @property
    def bytes(self) -> int:
        return self.pages * self.page_rows * self.kind.itemsize

    def resize(self, pages: int) -> None:
        """Have this many pages. Raises TamenError when there is no memory for them; then they are as before."""
        size = pages * self.page_rows * self.kind.itemsize
        self.records = np.empty(0, self.kind)  # a mapping cannot be moved while an array looks at it
        try:
            if self._memory is None:
                self._memory = _private_memory(size)
            else:
                self._memory.resize(size)
            self.pages = pages
        except OSError as error:
            raise TamenError(
                f"the learner has no memory for {size / 1e6:,.0f} MB of rows",
                why=str(error),
                fix="lower replay.capacity_rows, or give the learner a machine with more memory",
            ) from error
        finally:
            if self._memory is not None:
                self.records = np.frombuffer(self._memory, self.kind)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return the records at `places`, all of which exist, in memory that the next call writes to again.

        New memory for each batch would be taken from the system and given back, page by page.
        """
        if len(self._taken) < len(places):
            self._taken = np.empty(len(places), self.kind)
        # With "raise" numpy would write to memory of its own first.
        return self.records.take(places, out=self._taken[: len(places)], mode="clip")

    def copy_page(self, source: int, target: int) -> None:
        rows = self.page_rows
        self.records[target * rows : (target + 1) * rows] = self.records[source * rows : (source + 1) * rows]


def _private_memory(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _record_type(number: int, columns: Mapping[str, np.ndarray]) -> np.dtype:
    """Return the dtype of a record with these columns. Raises DataError when their lengths differ."""
    if len({len(column) for column in columns.values()}) != 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise DataError(
            f"chunk {number} cannot be learnt from",
            why=f"its columns differ in length: {lengths}",
            fix="the actor that made it is at fault",
        )
    # The widest first: then nothing is left empty between them.
    names = sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name))
    fields = [(name, columns[name].dtype, columns[name].shape[1:]) for name in names]
    return np.dtype(fields, align=True)


def _foreign(number: int, kind: np.dtype, expected: np.dtype) -> DataError:
    theirs, ours = _fields(kind), _fields(expected)
    differing = [
        f"{name} is {theirs.get(name, 'missing')}, expected {ours.get(name, 'none')}"
        for name in (*ours, *(name for name in theirs if name not in ours))
        if theirs.get(name) != ours.get(name)
    ]
    return DataError(
        f"chunk {number} does not fit the rows that came before it",
        why="; ".join(differing),
        fix="all actors of a run play one game, in one release; give this run another name to begin anew",
    )


def _fields(kind: np.dtype) -> dict[str, str]:
    """Return what is in each column, as a person reads it."""
    fields = {name: field[0] for name, field in (kind.fields or {}).items()}
    return {name: f"{field.base}{list(field.shape)}" for name, field in fields.items()}
