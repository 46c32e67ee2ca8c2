"""Saying what work waits for until it begins, and which nodes the cluster's autoscaler cannot have."""

import json
import threading
import time
from collections.abc import Callable
from typing import Self

PATIENCE_SECONDS = 20.0
"""How long work may wait for a worker on a node that lives before that is said; then after twice as long, and so on."""

POLL_SECONDS = 2.0
"""Between two looks at the cluster, until work begins."""

LATER_SECONDS = 30.0
"""The same from then on."""


class Waiting:
    """Watches, while the block lasts, for work to begin on the connected cluster.

    Args:
        needs: what it waits for, in words.
        lives: whether a node lives that has it.
        say: takes a line.
    """

    def __init__(self, needs: str, lives: bool, say: Callable[[str], None]) -> None:
        self.needs, self.lives, self.say = needs, lives, say
        self.began, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def begin(self) -> None:
        """The first work has begun."""
        self.began.set()

    def _watch(self) -> None:
        pause, told, waited = PATIENCE_SECONDS, set[str](), False
        next_line = pause if self.lives else 0.0
        while not self.ended.wait(LATER_SECONDS if self.began.is_set() and not waited else POLL_SECONDS):
            seconds = time.monotonic() - self.started
            coming, refused = _status()
            if self.began.is_set() and waited:
                self.say(f"it came after {seconds:.0f} s")
                waited = False
            if not self.began.is_set() and seconds >= next_line:
                how = f"; the cluster starts {', '.join(coming)}" if coming else ""
                self.say(f"waiting for {self.needs}, {seconds:.0f} s so far{how}")
                next_line, pause, waited = seconds + pause, 2 * pause, True
            for name in refused.keys() - told:
                self.say(f"the cluster cannot have {name} now and tries again: {refused[name]}")
                told.add(name)


def _status() -> tuple[list[str], dict[str, str]]:
    """The types of nodes that are on their way, and type → reason of those that could not be had of late. Ray's two
    autoscalers say so in two ways, and without an autoscaler neither does."""
    import ray
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    try:
        if is_autoscaler_v2():
            status = get_cluster_status(ray.get_runtime_context().gcs_address)
            starting = [launch.ray_node_type_name for launch in status.pending_launches]
            starting += [node.ray_node_type_name for node in status.pending_nodes]
            failed = {launch.ray_node_type_name: launch.details for launch in status.failed_launches}
        else:
            report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report", {})
            starting = [*report["pending_launches"], *(kind for _, kind, _ in report["pending_nodes"])]
            failed = {
                name: found["unavailable_node_information"]["description"]
                for name, found in report["node_availability_summary"]["node_availabilities"].items()
                if not found["is_available"]
            }
    except Exception:  # none of this is Ray's public interface, and nothing depends on it
        return [], {}
    return sorted(set(starting)), {
        name: next(iter((reason or "").strip().splitlines()), "monitor.log of Ray on the head says why")
        for name, reason in failed.items()
    }
