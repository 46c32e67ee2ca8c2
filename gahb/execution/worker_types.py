"""The worker types of a cluster: those that live, and those that its autoscaler may start.

Ray keeps what an autoscaler may start to itself. So it is read where the autoscaler reads it: on Kubernetes from the
RayCluster, elsewhere from the file that `ray start --head --autoscaling-config=FILE` named on the head.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gahb.errors import UserError
from gahb.planning.placement import WorkerType

HEAD = "node:__internal_head__"
"""Ray's resource that the head alone has."""

ASK_SECONDS = 30.0
"""How long the head may take to say what the autoscaler may start."""

KUBERNETES = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its namespace and its account."""


def living() -> list[WorkerType]:
    """The nodes that live in the connected cluster, by the name of their type or their own."""
    import ray

    return [
        WorkerType.of(node["Labels"].get("ray.io/node-group") or node["NodeName"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def startable() -> list[WorkerType]:
    """What the connected cluster's autoscaler may start; nothing where there is none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    session = ray.get_runtime_context().get_session_name()
    head = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"])
    if ray.get_runtime_context().get_node_id() == head:
        return _configured(session)
    there: Any = NodeAffinitySchedulingStrategy(head, soft=False)
    task: Any = ray.remote(num_cpus=0, scheduling_strategy=there)(_configured)
    found: list[WorkerType] = ray.get(task.remote(session), timeout=ASK_SECONDS)
    return found


def of_file(path: str) -> list[WorkerType]:
    """The worker types of a cluster file: Ray's cluster launcher's, or a RayCluster or RayJob of Kubernetes.

    Raises:
        UserError: no such file, or it names no worker types.
    """
    try:
        parts = [part for part in yaml.safe_load_all(Path(path).expanduser().read_text()) if isinstance(part, dict)]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a cluster file: {str(error).splitlines()[0]}") from None
    for part in parts:
        if part.get("kind") == "RayJob":
            found = _of_ray_cluster(part["spec"]["rayClusterSpec"])
        elif part.get("kind") == "RayCluster":
            found = _of_ray_cluster(part["spec"])
        else:
            found = _of_launcher(part)
        if found:
            return found
    raise UserError(f"{path} names no worker types; plan for a cluster that runs with --address")


def _configured(session: str) -> list[WorkerType]:
    """What the autoscaler of a session of Ray may start, as its configuration on this machine, the head, says."""
    name = os.environ.get("RAY_CLUSTER_NAME")
    if name and KUBERNETES.exists():
        return _of_kubernetes(name)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace")
        except OSError:  # it has ended, or is another user's
            continue
        named = re.search(r"--autoscaling-config=([^\0]+)", words)
        if named and f"/{session}/" in words:
            return _of_launcher(yaml.safe_load(Path(named[1]).expanduser().read_text()))
    return []


def _of_kubernetes(name: str) -> list[WorkerType]:
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    client = KubernetesHttpApiClient(namespace=(KUBERNETES / "namespace").read_text().strip())
    try:
        spec = client.get(f"rayclusters/{name}")["spec"]
    except OSError:  # only the account of a cluster that grows may read it
        return []
    return _of_ray_cluster(spec) if spec.get("enableInTreeAutoscaling") else []


def _of_ray_cluster(spec: Mapping[str, Any]) -> list[WorkerType]:
    from ray.autoscaler._private.kuberay import autoscaling_config

    named = {"metadata": {"name": "cluster", "namespace": "default"}, "spec": spec}
    return _of_launcher(autoscaling_config._derive_autoscaling_config_from_ray_cr(named))


def _of_launcher(config: Mapping[str, Any]) -> list[WorkerType]:
    most = config.get("max_workers", 0)
    return [
        WorkerType.of(name, node_type.get("resources", {}))
        for name, node_type in config.get("available_node_types", {}).items()
        if node_type.get("max_workers", most) > 0 and name != config.get("head_node_type")
    ]
