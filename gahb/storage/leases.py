"""Which launch has a trial in hand.

A launch shows that it is alive by writing `launches/<id>` in the storage again and again. To take a trial in hand it
creates the next file in `claims/<signature>/`, which holds its id; of two that try only one succeeds, and none tries
while the one before is alive.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gahb.storage.base import Storage

HEARTBEAT_SECONDS = 10.0
"""Seconds between two signs of life of a launch."""

LEASE_TTL = 60.0
"""Seconds without one after which a launch on another machine counts as dead."""


def acquire(storage: Storage, signature: str, launch_id: str) -> bool:
    """Take a trial in hand, unless another living launch has it."""
    claims = f"claims/{signature}"
    before = storage.names(claims)
    if before and alive(storage, storage.read(f"{claims}/{before[-1]}").decode()):
        return False
    return storage.create(f"{claims}/{len(before):06d}", launch_id.encode())


@contextlib.contextmanager
def heartbeat(storage: Storage) -> Iterator[str]:
    """A launch's id, whose file is written again and again until the block ends."""
    launch_id = uuid.uuid4().hex[:12]
    name, content = f"launches/{launch_id}", json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
    storage.write(name, content)
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                storage.write(name, content)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield launch_id
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            storage.remove(name)


def wait_for_heartbeats(launch_ids: Iterable[str], storage: Storage, say: Callable[[str], None]) -> bool:
    """Wait until those of the launches that are on other machines show a new sign of life, or are taken for dead;
    whether there were any. One that has just died looks alive for a while."""
    owners = {launch_id: _owner(storage, launch_id) for launch_id in launch_ids}
    elsewhere = [i for i, owner in owners.items() if owner and owner["host"] != socket.gethostname()]
    if elsewhere:
        say("another machine has trials of this sweep in hand; waiting for its next sign of life")
    for launch_id in elsewhere:
        before = storage.modified(f"launches/{launch_id}")
        while storage.modified(f"launches/{launch_id}") == before and alive(storage, launch_id):
            time.sleep(1)
    return bool(elsewhere)


def _owner(storage: Storage, launch_id: str) -> dict[str, Any] | None:
    """Host and process of a launch that has not ended."""
    try:
        owner: dict[str, Any] = json.loads(storage.read(f"launches/{launch_id}"))
    except FileNotFoundError:
        return None
    return owner


def alive(storage: Storage, launch_id: str) -> bool:
    """Whether a launch has shown a sign of life lately, and its process lives if it is one of this machine."""
    name = f"launches/{launch_id}"
    last = storage.modified(name) if launch_id else None
    if last is None or time.time() - last > LEASE_TTL:
        return False
    owner = _owner(storage, launch_id)
    if owner is None:  # it has just ended
        return False
    if owner["host"] != socket.gethostname():
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
