"""Saying what work waits for until it begins, and which nodes the cluster's autoscaler cannot have."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from gahb.planning.placement import KIND
from gahb.threads import beside

PATIENCE_SECONDS = 20.0
"""How long work may wait for a worker on a node that lives before that is said; then after twice as long, and so on."""

POLL_SECONDS = 2.0
"""Between two looks at the cluster, until work begins."""

LATER_SECONDS = 30.0
"""The same from then on."""


@contextlib.contextmanager
def waiting(resources: Mapping[str, float], say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """While the block lasts, say how long work on the connected cluster waits for a node with these resources; gives
    what is to be called when the first has begun."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    lives = any(all(node.get(key, 0) >= needed for key, needed in resources.items()) for node in nodes)
    what = _words(resources, alone=lives and len(nodes) == 1)
    began, started = threading.Event(), time.monotonic()

    def watch() -> Iterator[float]:
        pause, told, waited = PATIENCE_SECONDS, set[str](), False
        next_line = pause if lives else 0.0
        while True:
            yield LATER_SECONDS if began.is_set() and not waited else POLL_SECONDS
            seconds = time.monotonic() - started
            coming, refused = _status()
            if began.is_set() and waited:
                say(f"it came after {seconds:.0f} s")
                waited = False
            if not began.is_set() and seconds >= next_line:
                how = f"; the cluster starts {', '.join(coming)}" if coming else ""
                say(f"waiting for {what}, {seconds:.0f} s so far{how}")
                next_line, pause, waited = seconds + pause, 2 * pause, True
            for name in refused.keys() - told:
                say(f"the cluster cannot have {name} now and tries again: {refused[name]}")
                told.add(name)

    with beside(watch()):
        yield began.set


def _words(resources: Mapping[str, float], alone: bool) -> str:
    """Resources in words: "a node with 1 CPU, 1 GPU (L4) and 3.2 GB", or where one node alone lives and has them,
    "1 free CPU"."""
    free = "free " if alone else ""
    kinds = [key.removeprefix(KIND) for key in resources if key.startswith(KIND)]
    gpus = f"{resources['GPU']:g} {free}GPU{f' ({kinds[0]})' if kinds else ''}" if resources.get("GPU") else ""
    memory = f"{resources['memory'] / 1e9:.1f} GB" if resources.get("memory") else ""
    *most, last = filter(None, (f"{resources['CPU']:g} {free}CPU", gpus, memory))
    words = f"{', '.join(most)} and {last}" if most else last
    return words if alone else f"a node with {words}"


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
