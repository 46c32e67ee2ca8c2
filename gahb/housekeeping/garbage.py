"""What may go from a storage, and its removal.

    trials/<signature>/     a deleted trial's checkpoints, weights and logs; of a finished one the checkpoints, and the
                            weights that its artifacts have too, unless a longer trial may go on from there
    artifacts/…/<run>/      a deleted run's
    data/<hash>/            images of deleted trials alone; images that more of the same have replaced
    leases/, launches/      what launches that have ended have left
    scratch                 files in the making whose process died

The storage is listed before the record is read. So what a launch makes in the meantime is in the record, or not on the
list. Before anything of a trial is removed its lease is acquired, as a launch would, and everything is looked up once
more: no launch trains it, and it is still what it was. Prepared images have no lease, so they stay while a launch
lives, and while they are young.

What no run of the record has, neither one that is there nor a deleted one, may be of another record that shares the
storage: it is told apart (`Reason.UNKNOWN`).
"""

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gahb.data.dataset import read_manifest
from gahb.errors import UserError
from gahb.storage import leases
from gahb.storage.base import Storage
from gahb.storage.entry import Entry
from gahb.storage.local import MAKING
from gahb.tracking.record import Record
from gahb.tracking.run import Kind, Run, Tag
from gahb.training.checkpoint_names import STEP, WEIGHT_HISTORY, WEIGHT_HISTORY_0_1

YOUNG_SECONDS = 3600.0
"""Age up to which images, and what no run has, may be a launch's that has not made its runs yet."""

IDLE_SECONDS = 24 * 3600.0
"""Time after which a file in the making counts as left behind."""

PLACES = {
    "trials": re.compile("trials/([0-9a-f]{12})/.+"),
    "artifacts": re.compile("artifacts/.+?/([0-9a-f]{32})/artifacts/.+"),
    "data": re.compile("data/([0-9a-f]{16})/.+"),
    "leases": re.compile("(?:claims|leases)/([0-9a-f]{12})/.+"),
    "launches": re.compile("launches/([a-z0-9]{1,32})"),
}
"""What lies where in a storage, and the part of a name that says whose it is."""


class Reason(StrEnum):
    """Why something may go."""

    DELETED = "of a deleted run"
    TWICE = "weights that the artifacts have too"
    FINISHED = "checkpoint of a finished trial"
    DATA = "images of deleted trials"
    REPLACED = "images replaced by more of the same"
    LEASE = "lease that nobody holds"
    LAUNCH = "heartbeat of a launch that has ended"
    SCRATCH = "left in the making"
    UNKNOWN = "of no run in this record"


@dataclass(frozen=True)
class Garbage:
    """What may go together.

    Args:
        reason: why.
        name: what it is.
        files: of it.
        folder: that they are in, if nobody else writes there.
        place: where that is.
        signature: of the trial whose lease guards it; "" if none does.
    """

    reason: Reason
    name: str
    files: tuple[Entry, ...]
    folder: str
    place: Storage
    signature: str = ""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def find(storage: Storage, record: Record, *, ours: Collection[str] = (), launch_id: str = "") -> list[Garbage]:
    """What may go.

    Args:
        storage: where.
        record: that says what is needed.
        ours: the signatures of trials whose lease the caller holds.
        launch_id: under which the caller holds them.

    Raises:
        UserError: the storage or the record cannot be read.
    """
    return list(_Search(storage, record, ours, launch_id).all())


def remove(garbage: Sequence[Garbage], storage: Storage, record: Record) -> int:
    """Remove what `find` has found, but for what has become needed since; how many bytes that freed.

    Raises:
        OSError, UserError: the storage or the record cannot be used.
    """
    freed = 0
    with leases.heartbeat(storage) as launch_id:
        guarded = {item.signature for item in garbage if item.signature}
        ours = {signature for signature in guarded if leases.acquire(storage, signature, launch_id)}
        again = {
            (item.reason, file.name)
            for item in find(storage, record, ours=ours, launch_id=launch_id)
            for file in item.files
        }
        for item in garbage:
            if item.signature and item.signature not in ours:
                continue
            files = {file.name: file.bytes for file in item.files if (item.reason, file.name) in again}
            if item.folder:
                item.place.clear(item.folder, files.keys())
            elif item.reason != Reason.LEASE:  # it is ours now, and goes at the end
                for name in files:
                    item.place.remove(name)
            freed += sum(files.values())
        for signature in ours:
            leases.release(storage, signature)
    return freed


class _Search:
    """One look at storage and record; arguments as for `find`."""

    def __init__(self, storage: Storage, record: Record, ours: Collection[str], launch_id: str) -> None:
        self.storage, self.record, self.ours, self.launch_id = storage, record, ours, launch_id
        self.now = time.time()
        self.files = _by_place(storage.files())
        self.active, self.deleted = record.unchecked(), record.deleted()
        self.living = {launch for launch in self.files["launches"] if leases.alive(storage, launch)} - {launch_id}
        self.held = {signature for signature, files in self.files["leases"].items() if self._is_held(signature, files)}

    def all(self) -> Iterator[Garbage]:
        yield from self.trials()
        yield from self.artifacts()
        yield from self.data()
        for signature, files in self.files["leases"].items():
            if signature not in self.held:
                yield self._item(Reason.LEASE, signature, files, "", signature)
        for launch, files in self.files["launches"].items():
            if launch not in self.living and launch != self.launch_id:
                yield self._item(Reason.LAUNCH, launch, files, "")
        yield from self.scratch()

    def trials(self) -> Iterator[Garbage]:
        """The places of trials that no launch holds."""
        active, deleted = _by_tag(self.active, Tag.SIGNATURE), _by_tag(self.deleted, Tag.SIGNATURE)
        for signature, files in self.files["trials"].items():
            if signature in self.held:
                continue
            if signature not in active:
                runs = deleted.get(signature, [])
                yield from self._unneeded(Reason.DELETED, signature, files, runs, signature)
            elif not any(run.tags.get(Tag.COURSE) for run in active[signature]):
                finished = [run for run in active[signature] if run.state == "finished" and run.kind == Kind.TRIAL]
                yield from self.finished(signature, files, finished)

    def finished(self, signature: str, files: Sequence[Entry], runs: Sequence[Run]) -> Iterator[Garbage]:
        """What the finished runs of a trial, if there are any, have no use for any more: no trial goes on from it."""
        if not runs:
            return
        steps = [file for file in files if STEP.fullmatch(_last(file))]
        weights = [file for file in files if file.name.startswith(f"trials/{signature}/weights/")]
        kept = self._weight_history(runs[0]) if weights else set()
        twice = [file for file in weights if _last(file) in kept]
        for reason, found in ((Reason.TWICE, twice), (Reason.FINISHED, steps)):
            if found:
                yield self._item(reason, runs[0].name, found, f"trials/{signature}", signature)

    def artifacts(self) -> Iterator[Garbage]:
        """The artifacts of runs that are not there any more."""
        active, deleted = {run.run_id for run in self.active}, {run.run_id: run for run in self.deleted}
        for run_id, files in self.files["artifacts"].items():
            runs = [deleted[run_id]] if run_id in deleted else []
            signature = runs[0].signature if runs and runs[0].kind == Kind.TRIAL else ""
            if run_id not in active and signature not in self.held:
                yield from self._unneeded(Reason.DELETED, run_id, files, runs, signature)

    def data(self) -> Iterator[Garbage]:
        """Prepared images that no trial has, while no launch may be about to use them."""
        active, deleted = _by_tag(self.active, Tag.DATA_HASH), _by_tag(self.deleted, Tag.DATA_HASH)
        for data_hash, files in self.files["data"].items():
            if self.living or self._is_young(files):
                continue
            if data_hash not in active:
                yield from self._unneeded(Reason.DATA, data_hash, files, deleted.get(data_hash, []))
            elif replaced := self.replaced(data_hash, files):
                yield self._item(Reason.REPLACED, data_hash, replaced, "")

    def replaced(self, data_hash: str, files: Sequence[Entry]) -> list[Entry]:
        """The files with images of a data set that its manifest does not name; none if that cannot be read."""
        images = [file for file in files if _last(file).startswith("images-")]
        if len(images) < 2:
            return []
        try:
            current = read_manifest(self.storage, data_hash).get("file")
        except UserError:
            return []
        return [file for file in images if _last(file) != current]

    def scratch(self) -> Iterator[Garbage]:
        """Files in the making on this machine at which nobody has been for long, each by itself or with its folder."""
        found = defaultdict[str, list[Entry]](list)
        for file in self.storage.workshop.leftovers():
            parts = file.name.split("/")
            first = next(i for i, part in enumerate(parts) if MAKING.fullmatch(part))
            found["/".join(parts[: first + 1])].append(file)
        for name, files in found.items():
            if self.now - max(file.modified for file in files) > IDLE_SECONDS:
                folder = "" if files[0].name == name else name
                yield Garbage(Reason.SCRATCH, name, tuple(files), folder, self.storage.workshop)

    def _unneeded(
        self, reason: Reason, name: str, files: Sequence[Entry], deleted: Sequence[Run], signature: str = ""
    ) -> Iterator[Garbage]:
        """What no run has that is there: of deleted ones, or of none that is known, once it is not young."""
        folder = files[0].name.partition(name)[0] + name
        if deleted:
            of = deleted[0].flat["dataset"] if reason == Reason.DATA else deleted[0].name
            yield self._item(reason, f"{of} ({name[:16]})", files, folder, signature)
        elif not self._is_young(files):
            yield self._item(Reason.UNKNOWN, folder, files, folder, signature)

    def _item(self, reason: Reason, name: str, files: Iterable[Entry], folder: str, signature: str = "") -> Garbage:
        return Garbage(reason, name, tuple(files), folder, self.storage, signature)

    def _is_held(self, signature: str, files: Sequence[Entry]) -> bool:
        """Whether another launch that lives holds a trial's lease, or has just released it."""
        if signature in self.ours:
            return False
        try:
            return any(leases.holder(self.storage, file.name) in self.living for file in _last_of_each_folder(files))
        except FileNotFoundError:
            return True

    def _is_young(self, files: Sequence[Entry]) -> bool:
        return self.now - max(file.modified for file in files) < YOUNG_SECONDS

    def _weight_history(self, run: Run) -> set[str]:
        """The names of the weights that a finished run has as artifacts; none if these cannot be read."""
        try:
            return {
                name
                for folder in (WEIGHT_HISTORY, WEIGHT_HISTORY_0_1)
                for name in self.record.files(run.run_id, folder)
            }
        except UserError:
            return set()


def _by_place(files: Iterable[Entry]) -> Mapping[str, Mapping[str, list[Entry]]]:
    """Place → whose → the files of it."""
    found = {place: defaultdict[str, list[Entry]](list) for place in PLACES}
    for file in files:
        for place, pattern in PLACES.items():
            if match := pattern.fullmatch(file.name):
                found[place][match[1]].append(file)
    return found


def _by_tag(runs: Iterable[Run], tag: Tag) -> Mapping[str, list[Run]]:
    """Value of the tag → the runs that have it."""
    found = defaultdict[str, list[Run]](list)
    for run in runs:
        found[run.tags.get(tag, "")].append(run)
    return found


def _last_of_each_folder(files: Iterable[Entry]) -> Iterable[Entry]:
    return {file.name.rpartition("/")[0]: file for file in sorted(files)}.values()


def _last(file: Entry) -> str:
    """The last part of a file's name."""
    return file.name.rpartition("/")[2]
