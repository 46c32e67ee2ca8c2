"""Leases: which launch trains a trial.

A launch writes its heartbeat, `launches/<id>` in the storage, every HEARTBEAT_SECONDS; without one for LEASE_TTL it
counts as dead. To acquire a trial's lease it creates the next file in `leases/<signature>/`, which holds its id: of two
that try only one succeeds, and none tries while the holder of the last lease is alive.
"""

import contextlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gahb.storage.base import Storage
from gahb.storage.local import OddFile
from gahb.threads import beside

HEARTBEAT_SECONDS = 10.0
"""Seconds between two heartbeats of a launch."""

LEASE_TTL = 60.0
"""Seconds without a heartbeat after which a launch on another machine counts as dead, and its leases as free."""

MOST = 4096
"""Bytes of a heartbeat or a lease."""

ID = re.compile("[a-z0-9]{1,32}")
"""Of a launch."""

FOLDERS = ("claims", "leases")
"""Where leases are found; the last is where they are written, the first where version 0.1 wrote them."""


def acquire(storage: Storage, signature: str, launch_id: str) -> bool:
    """Acquire the lease of a trial; False if another living launch holds it, or has just released it."""
    number = 0
    for folder in FOLDERS:
        place = f"{folder}/{signature}"
        names = storage.names(place)
        try:
            if names and alive(storage, holder(storage, f"{place}/{names[-1]}")):
                return False
        except FileNotFoundError:
            return False
        number += len(names)
    return storage.create(f"{FOLDERS[-1]}/{signature}/{number:06d}", launch_id.encode())


def release(storage: Storage, signature: str) -> None:
    """Give up a trial's lease, which this living launch holds, and remove it with those before it: the last one last,
    as who finds that leaves the trial alone."""
    for folder in FOLDERS:
        place = f"{folder}/{signature}"
        for name in storage.names(place):
            storage.remove(f"{place}/{name}")


@contextlib.contextmanager
def heartbeat(storage: Storage) -> Iterator[str]:
    """The id of a new launch, whose heartbeat goes on until the block ends."""
    launch_id = uuid.uuid4().hex[:12]
    name, content = _heartbeat(launch_id), json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
    storage.write(name, content)

    def beat() -> Iterator[float]:
        while True:
            yield HEARTBEAT_SECONDS
            with contextlib.suppress(OSError):
                storage.write(name, content)

    try:
        with beside(beat()):
            yield launch_id
    finally:
        end(storage, launch_id)


def end(storage: Storage, launch_id: str) -> None:
    """Let a launch's leases be free at once."""
    with contextlib.suppress(OSError):
        storage.remove(_heartbeat(launch_id))


def alive(storage: Storage, launch_id: str) -> bool:
    """Whether a launch's last heartbeat is recent and, if it runs on this machine, its process exists. What is no id or
    no heartbeat of a launch is dead."""
    last = storage.modified(_heartbeat(launch_id)) if ID.fullmatch(launch_id) else None
    if last is None or time.time() - last > LEASE_TTL:
        return False
    owner = _owner(storage, launch_id)
    if owner is None:  # it has just ended
        return False
    return owner["host"] != socket.gethostname() or _exists(owner["pid"])


def wait_for_heartbeats(launch_ids: Iterable[str], storage: Storage, say: Callable[[str], None]) -> bool:
    """Wait for the next heartbeat of each of the launches that is on another machine, or until it counts as dead: one
    that has just died is alive for a while. True if there were any."""
    owners = {launch_id: _owner(storage, launch_id) for launch_id in launch_ids}
    elsewhere = [i for i, owner in owners.items() if owner and owner["host"] != socket.gethostname()]
    if elsewhere:
        say("a launch on another machine holds leases of this sweep's trials; waiting for its next heartbeat")
    for launch_id in elsewhere:
        before, began = storage.modified(_heartbeat(launch_id)), time.monotonic()
        while (
            storage.modified(_heartbeat(launch_id)) == before
            and alive(storage, launch_id)
            and time.monotonic() - began < LEASE_TTL  # a heartbeat may say that it is of the future
        ):
            time.sleep(1)
    return bool(elsewhere)


def _heartbeat(launch_id: str) -> str:
    return f"launches/{launch_id}"


def holder(storage: Storage, name: str) -> str:
    """The id of the launch that holds a lease, or whatever else is in it. Raises FileNotFoundError."""
    try:
        return storage.read(name, MOST).decode(errors="replace")
    except OddFile:
        return ""


def _owner(storage: Storage, launch_id: str) -> dict[str, Any] | None:
    """Host and process of a launch that has not ended."""
    if not ID.fullmatch(launch_id):
        return None
    try:
        owner = json.loads(storage.read(_heartbeat(launch_id), MOST))
    except (FileNotFoundError, OddFile, ValueError, RecursionError):
        return None
    match owner:
        case {"host": str(), "pid": int(pid)} if 0 < pid < 1 << 31:
            found: dict[str, Any] = owner
            return found
    return None


def _exists(pid: int) -> bool:
    """Whether a process of this machine exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
