"""New weights reach all who wait for them at once: announced first, written to disk beside that.

No Ray is needed here. What a version is handed on as, its handle, is made by a function that the owner gives: on Ray a
reference to an object that hosts pull, so that no server's copy passes through this process.
"""

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from core.errors import DataError, TamenError, UsageError
from inference_server.weights_store import WeightsStore, check_above
from networks.weights import Weights
from networks.wire import Content, WireForm, checksum_of, from_wire, to_wire

KEPT_VERSIONS = 32
KEPT_BYTES = 64 << 20
"""Versions at hand are so many, of so many bytes together, whichever is less; the newest always is."""
TOLD_VERSIONS = 2
"""Kept beside them: those whose number somebody was told last, who may come for them any time."""
GIVEN_OUT_AHEAD = 64
"""How far the durable mark is set beyond the newest version: once in half as many versions it is moved on."""
WRITE_AFTER_SECONDS = 0.25
RETRY_SECONDS = 1.0

T = TypeVar("T")
Handle = Any


@dataclass(frozen=True, slots=True)
class Announcement:
    """A version that may be had.

    Attributes:
        handle: gives the version as it travels (`networks.wire`).
        checksum: of what that gives.
        published_at: when the learner began to publish it, seconds since 1970 by its machine's clock; None when it was
            found on disk.
    """

    version: int
    handle: Handle
    checksum: int
    published_at: float | None


@dataclass(slots=True, eq=False)
class _Version:
    """A version at hand.

    Attributes:
        content: of its file.
        checksum: of `content`.
        handles: and the checksum of what each gives, by the form in which it travels, as far as somebody has asked.
    """

    number: int
    digest: str
    content: Content
    checksum: int
    published_at: float | None
    handles: dict[WireForm, tuple[Handle, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Model:
    """What is known of a model.

    Attributes:
        taken: the highest number of a file or an announcement.
        mark: durably, only versions below it are given out before they are files.
        unsettled: the number above which a learner has to go on after a crash; None once a version was published here.
        newest: the version that is announced.
        recent, told: versions at hand by number, the longest unused first.
        unwritten: versions on their way to disk, oldest first: the newest, and the newest milestone.
    """

    taken: int | None = None
    mark: int = 0
    unsettled: int | None = None
    newest: _Version | None = None
    recent: OrderedDict[int, _Version] = field(default_factory=OrderedDict)
    told: OrderedDict[int, _Version] = field(default_factory=OrderedDict)
    unwritten: list[_Version] = field(default_factory=list)

    def announce(self, version: _Version) -> None:
        self.taken, self.newest, self.unsettled = version.number, version, None
        self.recent[version.number] = version
        while len(self.recent) > KEPT_VERSIONS or self._recent_bytes() > KEPT_BYTES:
            if len(self.recent) == 1:
                return
            self.recent.popitem(last=False)

    def tell(self, version: _Version) -> None:
        """Keep a version for who was told of it."""
        self.told[version.number] = version
        self.told.move_to_end(version.number)
        while len(self.told) > TOLD_VERSIONS:
            self.told.popitem(last=False)

    def _recent_bytes(self) -> int:
        return sum(len(version.content) for version in self.recent.values())


class Broadcast:
    """Announces versions of models and hands them on; all methods belong to one event loop, and none holds it up.

    An announced version is a moment later a file of the store. What a crash may cost is told in
    docs/decisions/0012-announced-then-written.md. When versions come faster than the disk takes them, the newest is
    written next and those between are not; milestones are, as long as the disk keeps up with them.

    Args:
        store: where versions are kept; used by a thread of this object from now on.
        put: makes a handle of content; called on any thread.

    Attributes:
        trouble: why versions are not written, in words; "" while they are.
        refused: what was found damaged before it was written, the last of it.
    """

    def __init__(self, store: WeightsStore, put: Callable[[Content], Handle]) -> None:
        self._store = store
        self._put = put
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="weights-disk")
        self._models: dict[str, _Model] = {}
        self._changed = asyncio.Condition()
        self._publishing = asyncio.Lock()
        self._narrowing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._marking = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self.trouble = ""
        self.refused = ""

    async def publish(self, content: Content, handle: Handle, *, checksum: int, published_at: float) -> None:
        """Announce a version. Publishing it again, whose answer was lost, is no error.

        The checksum is looked at when it is written, and by each server before it takes it; not here.

        Args:
            content: of the version's file.
            handle: of `content`.
            checksum: of `content`, by who made it.
            published_at: seconds since 1970.

        Raises:
            DataError: when the header of `content` is damaged.
            UsageError: when the version is not above the newest: a version names one set of weights for ever.
            TamenError: when it cannot be noted on disk that such versions are given out.
        """
        weights = from_wire(content, source="published weights")
        async with self._publishing:
            model = await self._opened(weights.model)
            newest = model.newest
            if newest and (newest.number, newest.digest) == (weights.version, weights.digest):
                return
            check_above(weights, model.taken)
            if weights.version >= model.mark:
                await self._raise_mark(weights.model, model, weights.version)
            version = _Version(weights.version, weights.digest, content, checksum, published_at)
            version.handles["fp32"] = handle, checksum
            model.announce(version)
            milestones = [one for one in model.unwritten if self._store.is_milestone(one.number)]
            model.unwritten = [*milestones[-1:], version]
        async with self._changed:
            self._changed.notify_all()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_behind())

    async def newest_version(self, name: str) -> int | None:
        """Return the number of the newest version, which can be had for a while; None when nothing was published."""
        model = await self._opened(name)
        if model.newest is None:
            return None
        model.tell(model.newest)
        return model.newest.number

    async def highest_version(self, name: str) -> int | None:
        """Return a number above which none was ever given out, for a learner that begins; see `WeightsStore`."""
        model = await self._opened(name)
        return model.taken if model.unsettled is None else model.unsettled

    async def wait_newer(
        self, name: str, version: int, form: WireForm, *, timeout_seconds: float
    ) -> Announcement | None:
        """Return the newest version as soon as it is above `version`, None when it is not within the time.

        Args:
            form: in which it is to travel.
        """
        model = await self._opened(name)
        async with self._changed:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._changed.wait_for(lambda: model.newest and model.newest.number > version)
            except TimeoutError:
                return None
        newest = model.newest
        assert newest is not None
        handle, checksum = await self._handle(newest, form)
        return Announcement(newest.number, handle, checksum, newest.published_at)

    async def get(self, name: str, version: int | None = None) -> Content:
        """Return the content of a version's file, of the newest by default.

        Raises:
            UsageError: for a model or version that is not there, or not any more.
            DataError: when a version asked for by number is damaged.
        """
        model = await self._opened(name)
        found = model.newest if version is None else model.recent.get(version) or model.told.get(version)
        if found is None:
            return await self._on_disk(lambda: self._store.get(name, version).to_bytes())
        if version is not None:
            model.tell(found)
        return found.content

    async def settle(self) -> None:
        """Return when every announced version that is to be a file is one. To be called when nobody publishes.

        Raises:
            TamenError: when one cannot be written.
        """
        await self._write_waiting()
        async with self._publishing, self._writing:
            for name, model in self._models.items():
                if model.taken is None or model.unsettled is not None or model.unwritten:
                    continue
                if model.mark > model.taken + 1:
                    await self._on_disk(functools.partial(self._store.set_mark, name, model.taken + 1))
                    model.mark = model.taken + 1

    async def _opened(self, name: str) -> _Model:
        if name not in self._models:
            found = await self._on_disk(lambda: self._read(name))
            self._models.setdefault(name, found)  # another call may have read it meanwhile
        return self._models[name]

    def _read(self, name: str) -> _Model:
        """Return what the files tell of a model."""
        taken, highest = self._store.newest_version(name), self._store.highest_version(name)
        model = _Model(taken=taken, mark=self._store.mark(name))
        model.unsettled = highest if highest != taken else None
        try:
            weights = self._store.get(name)
        except UsageError:  # there is none, or none is sound
            return model
        content = weights.to_bytes()
        model.newest = _Version(weights.version, weights.digest, content, checksum_of(content), None)
        model.recent[weights.version] = model.newest
        return model

    async def _handle(self, version: _Version, form: WireForm) -> tuple[Handle, int]:
        async with self._narrowing:  # whoever comes second finds it made
            if form not in version.handles:
                version.handles[form] = await asyncio.to_thread(self._made, version, form)
            return version.handles[form]

    def _made(self, version: _Version, form: WireForm) -> tuple[Handle, int]:
        if form == "fp32":
            return self._put(version.content), version.checksum
        narrowed = to_wire(_intact(version), form)
        return self._put(narrowed), checksum_of(narrowed)

    async def _write_behind(self) -> None:
        """Write what waits until nothing does; while the disk is full, try again every so often.

        It begins a moment later, when servers have made ready what they were told of: on a small machine they need all
        of its processors for that.
        """
        await asyncio.sleep(WRITE_AFTER_SECONDS)
        while any(model.unwritten for model in self._models.values()):
            try:
                await self._write_waiting()
                self.trouble = ""
            except TamenError as error:
                self.trouble = f"{error.what}: {error.why}"
                await asyncio.sleep(RETRY_SECONDS)

    async def _write_waiting(self) -> None:
        async with self._writing:
            for name, model in list(self._models.items()):
                while model.unwritten:
                    await self._write_one(name, model, model.unwritten[0])

    async def _write_one(self, name: str, model: _Model, version: _Version) -> None:
        try:
            if version.number + GIVEN_OUT_AHEAD // 2 >= model.mark:
                await self._raise_mark(name, model, version.number)
            await self._on_disk(lambda: self._write(version))
        except DataError as error:  # the servers refuse it too; it would be damaged the next time as well
            self.refused = f"{error.what}: {error.why}"
        # While it was written it may have given way to a newer one.
        model.unwritten = [one for one in model.unwritten if one is not version]

    def _write(self, version: _Version) -> None:
        weights = _intact(version)
        replace(weights, checked=False).verify()  # a file says for ever what it holds
        self._store.write(weights.model, weights.version, bytes(version.content))

    async def _raise_mark(self, name: str, model: _Model, version: int) -> None:
        """Have it on disk that `version`, and some after it, may be given out before they are files."""
        below = version + 1 + GIVEN_OUT_AHEAD
        async with self._marking:  # who publishes and who writes may want it at once: it never goes back
            if below > model.mark:
                await self._on_disk(lambda: self._store.set_mark(name, below))
                model.mark = below

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Do what has to do with files: one thing at a time, on their own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


def _intact(version: _Version) -> Weights:
    """Return the weights of a version. Raises DataError when they are not what was published."""
    return from_wire(version.content, source="published weights", checksum=version.checksum)
