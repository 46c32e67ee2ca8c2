"""What a cluster stands on, each on a host of its own: PostgreSQL, an MLflow server, an S3 server."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from chaos.hosts import Host, find, until

PROGRAMS = {"postgres": "postgresql", "initdb": "postgresql", "pg_ctl": "postgresql"}
"""Program → the Debian package that has it."""

S3_PORT = 9000
BUCKET = "chaos"
START = 120
"""Seconds that a service may take to come up."""


class Database:
    """PostgreSQL."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.folder / "postgres"
        self.folder.mkdir()
        shutil.chown(self.folder, "postgres", "postgres")
        self._as_postgres("initdb", "--no-sync", "--auth=trust", "--username=gahb")
        with (self.folder / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        self.start()
        self._as_postgres("createdb", "--host=127.0.0.1", "--username=gahb", "gahb")
        self.uri = f"postgresql+psycopg2://gahb@{host.address}/gahb"

    def start(self) -> None:
        settings = "-c listen_addresses=* -c unix_socket_directories= -c max_connections=200"
        self._as_postgres("pg_ctl", "start", "--wait", f"--log={self.folder}/log", f"--options={settings}")

    def restart(self) -> None:
        """As after a crash: nobody is waited for, and the log is replayed."""
        self._as_postgres("pg_ctl", "stop", "--mode=immediate")
        self.start()

    def _as_postgres(self, program: str, *arguments: str) -> None:
        path = find(program)
        assert path is not None
        user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        self.host.run(*user, "env", f"PGDATA={self.folder}", path, *arguments)


class S3:
    """An S3 server that keeps everything in memory."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.url = f"http://{host.address}:{S3_PORT}"
        program = Path(sys.executable).parent / "moto_server"
        host.start(program, "--host=0.0.0.0", f"--port={S3_PORT}", log="s3.log")
        until(lambda: answers(self.url), START, "the S3 server")
        request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()

    @property
    def environment(self) -> dict[str, str]:
        """What clients need."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "chaos",
            "AWS_SECRET_ACCESS_KEY": "chaos",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


class Server:
    """An MLflow server.

    Args:
        host: where it runs.
        backend: the URI of its database.
        artifacts: where it keeps artifacts.
        environment: access to these.
        workers: processes that answer.
    """

    def __init__(self, host: Host, backend: str, artifacts: str, environment: dict[str, str], workers: int = 2) -> None:
        self.host, self.backend, self.artifacts, self.workers = host, backend, artifacts, workers
        self.environment = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **environment,
        }
        self.uri = f"http://{host.address}:5000"
        self.start()

    def start(self) -> None:
        self.host.start(
            Path(sys.executable).parent / "mlflow",
            "server",
            "--host=0.0.0.0",
            "--port=5000",
            f"--workers={self.workers}",
            f"--backend-store-uri={self.backend}",
            f"--artifacts-destination={self.artifacts}",
            log="mlflow.log",
            **self.environment,
        )
        until(lambda: answers(f"{self.uri}/health"), START, "the MLflow server")

    def kill(self) -> None:
        until(lambda: self.host.signal(signal.SIGKILL, "mlflow") == 0, 10, "the end of the MLflow server")

    def pause(self) -> None:
        """It accepts connections and never answers."""
        self.host.signal(signal.SIGSTOP, "mlflow")

    def resume(self) -> None:
        self.host.signal(signal.SIGCONT, "mlflow")


def answers(url: str) -> bool:
    """Whether a web server answers there; an OSError says why not."""
    with urllib.request.urlopen(url, timeout=5):
        return True


def fixed_size_folder(folder: Path, megabytes: int) -> Path:
    """A new folder that holds no more than so much."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    return folder


def free(folder: Path) -> int:
    """Bytes left in a folder."""
    left = os.statvfs(folder)
    return left.f_bavail * left.f_frsize
