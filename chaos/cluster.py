"""Ray on several hosts: by `ray up` over ssh as on machines of one's own, or by `ray start` on each."""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from chaos.hosts import Host

PORT = 6379
HEAD = (
    "export RAY_enable_autoscaler_v2=0; ray start --head --port=6379 --num-cpus=1 --object-store-memory=100000000 "
    "--include-dashboard=false --autoscaling-config=~/ray_bootstrap_config.yaml"
)
WORKER = "ray start --address=$RAY_HEAD_IP:6379 --num-cpus=1 --object-store-memory=100000000"

WAIT = """
import sys, time, ray
ray.init("auto", log_to_driver=False, logging_level="error")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(0.5)
"""


def environment() -> dict[str, str]:
    """What every host needs for Ray: the cluster's token, and quiet."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }


class Cluster:
    """A Ray cluster of one CPU a host; the first host is the head.

    Args:
        hosts: booted.
        laptop: where `ray up` is typed; None starts Ray on each host directly.
    """

    def __init__(self, hosts: Sequence[Host], laptop: Host | None, key: Path) -> None:
        self.head, *self.workers = hosts
        self.hosts, self.laptop = hosts, laptop
        self.address = f"{self.head.address}:{PORT}"
        if laptop:
            self.file = laptop.home / "cluster.yaml"
            self.file.write_text(json.dumps(self._config(key)))

    def up(self) -> None:
        """Start Ray wherever it does not run; returns when every host is part of it."""
        if self.laptop:
            self.laptop.run("ray", "up", "--yes", "--no-config-cache", self.file)
            self.head.run("python", "-c", WAIT, str(len(self.hosts)))
        else:
            self._start(self.head, HEAD.partition("--autoscaling")[0])
            for host in self.workers:
                self.rejoin(host)

    def rejoin(self, host: Host) -> None:
        """What brings back a worker host that has been booted again: `ray up`'s monitor by itself, or a start."""
        if not self.laptop:
            self._start(host, WORKER.replace("$RAY_HEAD_IP", self.head.address))

    def _start(self, host: Host, command: str) -> None:
        host.run("bash", "-c", command)

    def _config(self, key: Path) -> dict[str, object]:
        return {
            "cluster_name": "chaos",
            "provider": {
                "type": "local",
                "head_ip": self.head.address,
                "worker_ips": [host.address for host in self.workers],
            },
            "auth": {"ssh_user": "root", "ssh_private_key": str(key)},
            "min_workers": len(self.workers),
            "max_workers": len(self.workers),
            "head_start_ray_commands": ["ray stop", HEAD],
            "worker_start_ray_commands": ["ray stop", WORKER],
        }
