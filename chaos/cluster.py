"""Ray on several hosts: `ray up cluster.local.yaml` over ssh, as on machines of one's own, or `ray start` on each."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from chaos.hosts import Host

FILE = Path(__file__).parents[1] / "cluster.local.yaml"
PORT = 6379
SIZE = "--num-cpus=1 --object-store-memory=100000000"
HEAD = f"ray start --head --port={PORT} --include-dashboard=false {SIZE}"

WAIT = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="error")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.5)
"""

ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Of every host."""


class Cluster:
    """A Ray cluster of one CPU a host; the first host is the head.

    Args:
        hosts: booted.
        laptop: where `ray up` is typed; None starts Ray on each host directly.
        key: for ssh.
    """

    def __init__(self, hosts: Sequence[Host], laptop: Host | None, key: Path) -> None:
        self.head, *self.workers = hosts
        self.hosts, self.laptop = hosts, laptop
        self.address = f"{self.head.address}:{PORT}"
        token = secrets.token_hex(32)
        for host in [laptop] if laptop else hosts:
            (host.home / ".ray").mkdir()
            (host.home / ".ray/auth_token").touch(mode=0o600)
            (host.home / ".ray/auth_token").write_text(token)
        if laptop:
            self.file = laptop.home / FILE.name
            self.file.write_text(yaml.safe_dump(self._config(key)))

    def up(self) -> None:
        """Start Ray wherever it does not run; returns when every host is part of it."""
        if self.laptop:
            self.laptop.run("ray", "up", "--yes", "--no-config-cache", self.file)
            self.head.run("python", "-c", WAIT, self.address, str(len(self.hosts)))
        else:
            self.head.run(*HEAD.split())
            for host in self.workers:
                self.rejoin(host)

    def rejoin(self, host: Host) -> None:
        """What brings back a worker host that was away: the monitor of `ray up` by itself, or a start."""
        if not self.laptop:
            host.run("ray", "stop", "--force")
            host.run("ray", "start", f"--address={self.address}", *SIZE.split())

    def _config(self, key: Path) -> dict[str, Any]:
        """`cluster.local.yaml` for these hosts, which have everything installed and a record elsewhere."""
        config: dict[str, Any] = yaml.safe_load(FILE.read_text())
        config["provider"] |= {"head_ip": self.head.address, "worker_ips": [host.address for host in self.workers]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
        config["min_workers"] = config["max_workers"] = len(self.workers)
        config["file_mounts"] = {"~/.ray/auth_token": "~/.ray/auth_token"}
        config["setup_commands"] = ["touch ~/.gahb"]
        for step in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[step] = [line for line in config[step] if "mlflow.sh" not in line]
            config[step][-1] += f" {SIZE}"
        return config
