"""Worker types out of cluster files, and out of a Kubernetes server that speaks as a real one does."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from gahb.errors import UserError
from gahb.execution import worker_types
from gahb.planning.placement import WorkerType

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """How a pod reaches a server that has one RayCluster, "sweep" in "lab", ours."""
    if not shutil.which("openssl"):
        pytest.skip("a server of https needs a certificate, and there is no openssl to make one")
    folder = tmp_path_factory.mktemp("kubernetes")
    key, certificate = folder / "key.pem", folder / "ca.crt"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    (job,) = (
        part for part in yaml.safe_load_all((ROOT / "cluster/rayjob.yaml").read_text()) if part["kind"] == "RayJob"
    )
    path = "/apis/ray.io/v1/namespaces/lab/rayclusters/sweep"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 403)
            self.end_headers()
            if self.path == path:
                self.wfile.write(json.dumps({"spec": job["spec"]["rayClusterSpec"]}).encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT_HTTPS": str(server.server_port),
        "RAY_KUBERAY_CA_CERT_PATH": str(certificate),
    }
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("namespace", "found"), [("lab", True), ("elsewhere", False)])
def test_a_pod_asks_kubernetes_what_may_be_started(
    kubernetes: dict[str, str], namespace: str, found: bool, tmp_path: Path
) -> None:
    (tmp_path / "namespace").write_text(f"{namespace}\n")
    (tmp_path / "token").write_text("secret")
    script = (
        "import json, dataclasses, pathlib\nfrom gahb.execution import worker_types\n"
        "from ray.autoscaler._private.kuberay import node_provider\n"
        f"worker_types.KUBERNETES = pathlib.Path({str(tmp_path)!r})\n"
        f"node_provider.IN_CLUSTER_TOKEN_PATH = {str(tmp_path / 'token')!r}\n"
        "print(json.dumps([dataclasses.asdict(each) for each in worker_types._configured('session')]))"
    )
    env = {**os.environ, **kubernetes, "RAY_CLUSTER_NAME": "sweep"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = [WorkerType(**each) for each in json.loads(done.stdout)]
    assert answer == (worker_types.of_file(str(ROOT / "cluster/rayjob.yaml")) if found else [])


def test_the_head_and_types_without_workers_are_left_out(tmp_path: Path) -> None:
    types = {
        "head": {"resources": {"CPU": 8}},
        "off": {"resources": {"CPU": 8}, "max_workers": 0},
        "on": {"resources": {"CPU": 4, "memory": 10**9, "GPU": 2, "accelerator_type:T4": 1}},
    }
    config = {"max_workers": 2, "head_node_type": "head", "available_node_types": types}
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    assert worker_types.of_file(str(file)) == [WorkerType("on", 4, 2, 1e9, "T4")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a cluster file"),
        ("a: [", "cannot be read as a cluster file"),
        ("- 1", "names no worker types"),
        ("provider: {type: local}", "names no worker types; plan for a cluster that runs with --address"),
    ],
)
def test_a_file_without_worker_types_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        worker_types.of_file(str(file))
