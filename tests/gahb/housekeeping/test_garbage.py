import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import gahb
from gahb.housekeeping.garbage import IDLE_SECONDS, YOUNG_SECONDS, Garbage, Reason, find, remove
from gahb.storage import leases
from gahb.storage.base import Storage
from gahb.storage.local import Folder
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.record_writer import RecordWriter
from gahb.trial import Trial
from tests.helpers import TINY, TRIAL_TAGS, Ended, Place

COURSE = {**TINY, "schedule": "constant", "n_train": 4, "images": 32 * 40}


def in_use(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def reasons(found: list[Garbage]) -> set[Reason]:
    return {item.reason for item in found}


def test_after_gc_all_that_is_left_restores_pairs_and_goes_on(copied: Place, command: Callable[..., Ended]) -> None:
    (short,) = copied.launch([Trial.of(COURSE)])
    gone = lookup.find(copied.record, "16x16-N64-A")
    copied.writer.client.delete_run(gone.run_id)
    listed = command("gahb-sweep", "gc", "--json", *copied.flags).json
    before = in_use(copied.storage)
    ended = command("gahb-sweep", "gc", "--delete", *copied.flags)
    assert before - in_use(copied.storage) == listed["bytes"] == sum(row["bytes"] for row in listed["items"]) > 0
    assert f"{listed['bytes']:,} of {listed['bytes']:,} bytes freed" in ended.err
    assert {row["reason"] for row in listed["items"]} == {
        "of a deleted run", "weights that the artifacts have too", "checkpoint of a finished trial",
        "lease that nobody holds",
    }  # fmt: skip
    assert not list(copied.storage.glob(f"**/{gone.run_id}*")) + list(copied.storage.glob(f"trials/{gone.signature}"))
    assert "nothing may go" in command("gahb-sweep", "gc", *copied.flags).err

    for run in lookup.finished_trials(copied.record, "tiny"):
        assert gahb.load(run.run_id, record=copied.record.uri, storage=copied.store.uri)
        assert command("gahb-sweep", "logs", run.run_id, *copied.flags).out
    pair = command("gahb-analyze", "pair", "16x16-N1-A", "16x16-N1-B", "--samples", "2", "--json", *copied.flags)
    assert pair.json["samples"] == 2
    trials = [Trial.of(flat) for flat in ({**TINY, "n_train": 1}, COURSE, {**COURSE, "images": 32 * 60})]
    rows = copied.launch([*trials, gone.trial])
    assert [row["trained"] for row in rows] == [False, False, True, True]
    assert rows[1]["run_id"] == short["run_id"] and rows[2]["images_reused"] == COURSE["images"]
    assert rows[3]["metrics"] == gone.psnrs


SIGNATURE, DATA = "abcdefabcdef", TRIAL_TAGS["gahb.data_hash"]


def deleted_trial(storage: Storage, record: Record) -> str:
    """A deleted trial that has left something everywhere; the id of its run."""
    writer = RecordWriter(record.uri, storage.url)
    tags = {**TRIAL_TAGS, "gahb.signature": SIGNATURE, "gahb.sweep.s": "true"}
    run_id = writer.create("s", "16x16-N1-A", params={"width": 8}, tags=tags)
    writer.add_text(run_id, "a card", "card.json")
    for name in ("step-000000001.safetensors", "weights/images-000000000001.safetensors", "log/worker.txt"):
        storage.write(f"trials/{SIGNATURE}/{name}", b"some bytes")
    storage.write(f"data/{DATA}/manifest.json", b"{}")
    with leases.heartbeat(storage) as launch_id:
        assert leases.acquire(storage, SIGNATURE, launch_id)
    writer.client.delete_run(run_id)
    return run_id


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass."""
    now = time.time

    def wait(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now() + seconds)

    return wait


def test_everything_of_a_deleted_trial_goes_from_a_folder_and_from_a_bucket(
    storage: Storage, copied: Place, later: Callable[[float], None]
) -> None:
    record = Record(copied.record.uri, storage.url)
    run_id = deleted_trial(storage, record)
    storage.write("mine/notes.txt", b"not gahb's")
    storage.write("launches/0123456789ab", b'{"host": "elsewhere", "pid": 1}')
    found = find(storage, record)
    assert reasons(found) == {Reason.DELETED, Reason.LEASE}, "images are young, and a launch elsewhere may live"
    later(YOUNG_SECONDS + 1)
    found = find(storage, record)
    assert reasons(found) == {Reason.DELETED, Reason.LEASE, Reason.LAUNCH, Reason.DATA}
    names = {item.name for item in found}
    assert names >= {f"16x16-N1-A ({run_id[:16]})", f"16x16-N1-A ({SIGNATURE})", f"c_alpha ({DATA})"}
    before = sum(file.bytes for file in storage.files())
    freed = remove(found, storage, record)
    assert [file.name for file in storage.files()] == ["mine/notes.txt"]
    assert freed == sum(item.bytes for item in found) == before - len(b"not gahb's")
    if isinstance(storage, Folder):
        assert not (storage.path / f"trials/{SIGNATURE}").exists() and not (storage.path / f"data/{DATA}").exists()


def test_what_a_living_launch_holds_stays(copied: Place, later: Callable[[float], None]) -> None:
    deleted_trial(copied.store, copied.record)
    found = find(copied.store, copied.record)
    before = copied.store.files()
    with leases.heartbeat(copied.store) as launch_id:
        assert leases.acquire(copied.store, SIGNATURE, launch_id)
        assert SIGNATURE not in {item.signature for item in find(copied.store, copied.record)}
        mine = [item for item in found if item.signature == SIGNATURE]
        assert len(mine) == 3 and remove(mine, copied.store, copied.record) == 0, "it has begun since"
        later(YOUNG_SECONDS + 1)
        copied.store.write(f"launches/{launch_id}", copied.store.read(f"launches/{launch_id}"))
        os.utime(copied.storage / f"launches/{launch_id}", (time.time(), time.time()))
        assert Reason.DATA not in reasons(find(copied.store, copied.record))
    assert set(before) < set(copied.store.files())


def test_what_came_back_between_the_list_and_the_removal_stays(copied: Place) -> None:
    run_id = deleted_trial(copied.store, copied.record)
    found = find(copied.store, copied.record)
    copied.writer.client.restore_run(run_id)
    mine = [item for item in found if item.reason == Reason.DELETED and item.signature == SIGNATURE]
    assert len(mine) == 2 and remove(mine, copied.store, copied.record) == 0
    assert copied.record.files(run_id) == ["card.json"]


def test_what_no_run_has_may_be_another_record_s(
    copied: Place, command: Callable[..., Ended], later: Callable[[float], None]
) -> None:
    (copied.folder / "other").mkdir()
    other = Place(copied.folder / "other")
    later(YOUNG_SECONDS + 1)
    flags = ("--record", other.record.uri, "--storage", str(copied.storage))
    ended = command("gahb-sweep", "gc", *flags)
    assert ended.code == 2 and "no record" in ended.err
    assert other.record.client
    listed = command("gahb-sweep", "gc", "--json", *flags).json
    assert {row["reason"] for row in listed["items"]} == {"lease that nobody holds"} and listed["bytes_unknown"] > 10**5
    (copied.storage / "data" / DATA).mkdir()
    (copied.storage / "data" / DATA / "manifest.json").write_text("{}")
    listed = command("gahb-sweep", "gc", "--unknown", "--json", *copied.flags).json
    assert [row["name"] for row in listed["items"] if row["reason"] == Reason.UNKNOWN] == [f"data/{DATA}"]


def test_images_that_more_of_the_same_have_replaced_and_files_in_the_making(
    copied: Place, later: Callable[[float], None]
) -> None:
    (data,) = (copied.storage / "data").glob("[0-9a-f]*")
    (data / "images-7.npy").write_bytes(b"fewer")
    for name in (".making-abc_12/images.npy", f"data/{data.name}/.keys.txt-01234567"):
        (copied.storage / name).parent.mkdir(exist_ok=True)
        (copied.storage / name).write_bytes(b"cut off")
    later(YOUNG_SECONDS + 1)
    assert Reason.SCRATCH not in reasons(find(copied.store, copied.record))
    later(IDLE_SECONDS + 1)
    found = [i for i in find(copied.store, copied.record) if i.reason in (Reason.SCRATCH, Reason.REPLACED)]
    assert sorted(file.name for item in found for file in item.files) == [
        ".making-abc_12/images.npy",
        f"data/{data.name}/.keys.txt-01234567",
        f"data/{data.name}/images-7.npy",
    ]
    assert remove(found, copied.store, copied.record) == sum(item.bytes for item in found) == 19
    assert not (copied.storage / ".making-abc_12").exists()
