"""A Ray cluster on this machine that begins with a head of no CPU and grows by its autoscaler, with nodes that are
processes and GPUs that are claimed only."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

from tests.helpers import free_ports

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
HEAD = "ray.head.default"
FILES = "GROWING_FILES"
"""The environment variable with the folder of the nodes' files."""

SOLD_OUT = "sold-out"
"""A type of nodes that cannot be had."""


class Provider(FakeMultiNodeProvider):
    """Ray's own, whose nodes take as much memory as this machine has for one, and which has a type that is sold out."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Mapping[str, str], count: int, resources: Mapping[str, float], labels: Any
    ) -> None:
        if tags["ray-user-node-type"] == SOLD_OUT:
            raise NodeLaunchException("InsufficientInstanceCapacity", "there is no capacity for it in this zone", None)
        rest = {key: value for key, value in resources.items() if key != "memory"}
        files = tempfile.mkdtemp(dir=os.environ[FILES])  # nodes of one machine would unpack code over each other's
        own = partial(parameter.RayParams, temp_dir=files)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parameter, "RayParams", own)
            super().create_node_with_resources_and_labels(node_config, tags, count, rest, labels)


@dataclass(frozen=True)
class Growing:
    """A cluster: the address of its head, that of its job server, the environment variables with which one reaches
    them, and the folder of its nodes' files."""

    address: str
    server: str
    env: dict[str, str]
    files: Path


@contextmanager
def growing(
    folder: Path, types: Mapping[str, Mapping[str, float]], *, version: int = 2, token: str = ""
) -> Iterator[Growing]:
    """A cluster that may start a node of each of these types (name → resources), under the first or the second version
    of Ray's autoscaler, with authentication if there is a token."""
    port, dashboard, agent, client = free_ports(4)
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    provider = {
        "type": "external",
        "module": f"{Provider.__module__}.{Provider.__qualname__}",
        "gcs_address": f"127.0.0.1:{port}",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        **({"launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID} if version == 2 else {}),
    }
    node_types = {
        name: {"resources": dict(found), "node_config": {}, "max_workers": 1} for name, found in types.items()
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    config = {
        "cluster_name": "growing",
        "max_workers": 4,
        "idle_timeout_minutes": 1,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": {**node_types, HEAD: {"resources": {}, "node_config": {}, "max_workers": 0}},
        "head_node_type": HEAD,
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "auth": {},
        **{f"{name}_commands": [] for name in commands},
    }
    file = folder / "autoscaling.json"
    file.write_text(json.dumps(config))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **access,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": str(version - 1),
        **(
            {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
            if version == 2
            else {}
        ),
    }
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"]
    words += [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    words += [f"--ray-client-server-port={client}", f"--autoscaling-config={file}", "--node-ip-address=127.0.0.1"]
    words += ["--object-store-memory=200000000"]
    with (folder / "head.log").open("w") as log, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as files:
        environment[FILES] = environment["RAY_TMPDIR"] = files
        head = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while "Ray runtime started" not in (folder / "head.log").read_text():
                assert time.monotonic() < deadline and head.poll() is None, (folder / "head.log").read_text()[-2000:]
                time.sleep(0.5)
            yield Growing(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", access, Path(files))
        finally:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
