"""All hosts, what runs on them, and the launches of the sweep."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from chaos.cluster import ENVIRONMENT, Cluster
from chaos.hosts import Host, build_network, make_key
from chaos.services import BUCKET, S3, Database, Server, fixed_size_folder
from chaos.sweep import Sweep
from gahb.tracking.record import Record

SHARED_MEGABYTES = 256
DRIVER = "gahb_sweeps.cli"
"""What the command line of a launch has and no other."""


class World:
    """A cluster and its services, up and running.

    Args:
        folder: for everything that is written.
        hosts: of the cluster.
        whole: with PostgreSQL, S3 and `ray up` over ssh; else the record is a server's SQLite file, the storage a
            shared folder, and Ray is started on each host.
        launched: the sweep.
        outage: seconds that a service or network is gone.
    """

    def __init__(self, folder: Path, hosts: int, whole: bool, launched: Sweep, outage: float) -> None:
        self.folder, self.sweep, self.outage = folder, launched, outage
        self.drivers: list[subprocess.Popen[bytes]] = []
        self.launchable = threading.Lock()
        self.launches = 0
        self.storage = ""
        build_network()
        make_key(folder)
        self.shared = fixed_size_folder(folder / "shared", SHARED_MEGABYTES)
        names = [f"host{i + 1}" for i in range(hosts)]
        self.hosts = {
            name: Host(name, 1 + i, folder, ENVIRONMENT)
            for i, name in enumerate([*names, "record", *(["laptop", "database", "s3"] if whole else [])])
        }
        for host in self.hosts.values():
            host.boot()
        self.s3 = S3(self.hosts["s3"]) if whole else None
        self.database = Database(self.hosts["database"]) if whole else None
        self.access = self.s3.environment if self.s3 else {}
        backend = self.database.uri if self.database else f"sqlite:///{folder}/record.db"
        artifacts = f"s3://{BUCKET}/artifacts" if whole else str(folder / "artifacts")
        self.server = Server(self.hosts["record"], backend, artifacts, self.access, workers=2 if whole else 1)
        self.cluster = Cluster([self.hosts[name] for name in names], self.hosts.get("laptop"), folder / "key")
        self.cluster.up()

    @property
    def workers(self) -> list[Host]:
        return self.cluster.workers

    def begin(self, name: str, on_folder: bool) -> None:
        """A new storage and no drivers."""
        self.launches = 0
        self.drivers.clear()
        for file in self.cluster.head.folder.glob("launch-*.json"):
            file.unlink()
        self.storage = str(self.shared / name) if on_folder or not self.s3 else f"s3://{BUCKET}/{name}"

    def launch(self) -> None:
        """Start the sweep's launch on the head; its data go to `launch-<number>.json` in the head's folder."""
        with self.launchable:
            self.launches += 1
            head = self.cluster.head
            command = self.sweep.command("--address", self.cluster.address, "--storage", self.storage)
            line = f"exec {shlex.join(command)} > {head.folder}/launch-{self.launches}.json"
            self.drivers.append(
                head.start(
                    "sh",
                    "-c",
                    line,
                    log="launch.log",
                    PYTHONPATH=os.environ.get("PYTHONPATH", ""),
                    MLFLOW_TRACKING_URI=self.server.uri,
                    **self.access,
                )
            )

    def on_one_machine(self, against: str | None) -> Record:
        """The record of the sweep run by a Ray of one host's own, into SQLite, unless one is given by its URI, beside
        the storage `undisturbed`."""
        if against:
            storage = Path(against.removeprefix("sqlite:///")).with_name("undisturbed")
            return Record(against, storage.absolute().as_uri())
        host = self.hosts["record"]
        record = f"sqlite:///{self.folder}/undisturbed.db"
        command = self.sweep.command("--record", record, "--storage", f"{self.folder}/undisturbed")
        if host.start(*command, log="undisturbed.log", PYTHONPATH=os.environ.get("PYTHONPATH", "")).wait():
            raise RuntimeError((host.folder / "undisturbed.log").read_text())
        return Record(record, (self.folder / "undisturbed").as_uri())

    def kill_drivers(self) -> None:
        self.cluster.head.signal(signal.SIGKILL, DRIVER)
        for driver in self.drivers:
            driver.wait()

    def kill(self, pid: int) -> None:
        """SIGKILL of a process, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    @property
    def finished(self) -> bool:
        """Whether a launch has ended with every trial finished."""
        for file in self.cluster.head.folder.glob("launch-*.json"):
            with contextlib.suppress(ValueError):
                if all(row["state"] == "finished" for row in json.loads(file.read_text())["trials"]):
                    return True
        return False

    def clean(self) -> None:
        """Throw away what a round left in the storage."""
        shutil.rmtree(self.storage, ignore_errors=True)
