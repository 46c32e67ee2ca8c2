"""The Ray node that this process is attached to. Where it dies, or the head is out of reach, Ray leaves the process
hanging for a minute and then ends it without a word; here it ends at once, in one line."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

from gahb import progress
from gahb.cli import say
from gahb.threads import beside

POLL_SECONDS = 2.0

HEAD_PATIENCE_SECONDS = 45.0
"""How long the head may be out of reach. Ray itself gives up after 60."""


@contextlib.contextmanager
def watched(before_end: Callable[[], None] = lambda: None) -> Iterator[None]:
    """While the block lasts, end this process with status 1 if its Ray node dies.

    Args:
        before_end: called then, from another thread.
    """
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")

    def watch() -> Iterator[float]:
        head_seen = time.monotonic()
        while True:
            yield POLL_SECONDS
            lost = ""
            if _listens(host.strip("[]"), int(port)):
                head_seen = time.monotonic()
            elif time.monotonic() - head_seen > HEAD_PATIENCE_SECONDS:
                lost = f"the cluster's head {host} is out of reach"
            if not _listens(node["NodeManagerAddress"], node["NodeManagerPort"]):
                lost = f"the Ray node on {socket.gethostname()} has died"
            if lost:
                yield 0.0  # the block may have ended meanwhile
                before_end()
                say(f"{lost}; the same command goes on from the checkpoints")
                progress.stop()
                os._exit(1)

    with beside(watch()):
        yield


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
