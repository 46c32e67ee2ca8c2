"""Commands as jobs, on a Ray head with a job server and token authentication, which has no worker yet, beside an MLflow
server."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gahb.errors import UserError
from gahb.execution import ray_jobs
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import Kind
from tests.growing import growing
from tests.helpers import TINY, Ended, file_of, free_ports, process

SMALL = [f"{key}={value}" for key, value in {**TINY, "images": 320, "n_train": 1, "subset": "A"}.items()]
COMMANDS = {"gahb-sweep": "gahb_sweeps.cli", "gahb-analyze": "gahb_analysis.cli"}
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """Where a laptop finds the job server, the record and the storage."""

    address: str
    record: str
    storage: Path
    token: str

    def start(self, name: str, *words: str, **env: str) -> "subprocess.Popen[str]":
        code = f"from {COMMANDS[name]} import main; main()"
        flags = ["--address", self.address, "--record", self.record, "--storage", str(self.storage)]
        known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, **env}
        return subprocess.Popen(
            [sys.executable, "-c", code, *words, *flags],
            env={**os.environ, **known},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, *words: str, **env: str) -> Ended:
        return ended(self.start(name, *words, **env))

    def ray(self, *words: str) -> str:
        env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "job",
            *words[:1],
            "--address",
            self.address,
            *words[1:],
        ]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def ended(process: "subprocess.Popen[str]") -> Ended:
    try:
        out, err = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"no end after three minutes: {process.communicate()}")
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("aiohttp_cors", reason="the job server needs ray[default]")
    folder = tmp_path_factory.mktemp("cluster")
    (mlflow,) = free_ports(1)
    server = [sys.executable, "-m", "mlflow", "server", f"--port={mlflow}", "--workers=1"]
    server += [f"--backend-store-uri=sqlite:///{folder}/record.db", f"--artifacts-destination={folder}/artifacts"]
    record, token = f"http://127.0.0.1:{mlflow}", secrets.token_hex(32)
    settings = {"PATH": f"{BIN}:{os.environ['PATH']}", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with growing(folder, {"cpu": {"CPU": 2, "memory": 4e9}}, token=token) as ray, process(server, record, settings):
        yield Cluster(ray.server, record, folder / "storage", token)


def test_a_job_s_data_talk_and_exit_status_come_back(cluster: Cluster) -> None:
    mistaken = cluster.start("gahb-sweep", "launch", "demo", *SMALL[1:], "dataset=/no/such/place")
    good = cluster.start("gahb-sweep", "launch", "demo", *SMALL, "--json")
    trained, failed = ended(good), ended(mistaken)
    assert trained.code == 0, trained.err
    (row,) = trained.json["trials"]
    assert row["state"] == "finished" and row["trained"]
    assert re.match(r"job launch-\w+ on http://", trained.err) and "[1/1] 16x16-N1-A" in trained.err
    (run,) = lookup.finished_trials(Record(cluster.record, cluster.storage.as_uri()), "demo")
    assert run.run_id == row["run_id"]
    assert failed.code == 2 and failed.out == ""
    _, line = failed.err.splitlines()
    assert line.startswith("gahb-sweep (on ") and "dataset=/no/such/place: no such file or folder" in line


def test_a_plugin_file_travels_with_the_job_and_to_its_workers(cluster: Cluster, tmp_path: Path) -> None:
    file = file_of(tmp_path, "dataset", "architecture", "sweep", name="mine.py")
    launched = cluster.run("gahb-sweep", "launch", str(file), "n_train=1", "subset=A", "images=320", "--json")
    assert launched.code == 0, launched.err
    (row,) = launched.json["trials"]
    assert row["state"] == "finished" and row["architecture"] == "plain"


def test_a_stranger_s_token_is_refused(cluster: Cluster) -> None:
    stranger = cluster.run("gahb-sweep", "launch", "demo", *SMALL, RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert stranger.code == 2 and stranger.out == "" and len(stranger.err.splitlines()) == 1
    assert "refuses this machine's token" in stranger.err


@pytest.mark.slow
def test_a_job_s_answers_come_back_and_its_report_is_made_on_the_cluster(cluster: Cluster) -> None:
    both = [word for word in SMALL if not word.startswith("subset")]
    job = cluster.run("gahb-sweep", "launch", "demo", *both, "--as", "answered", "--report", "--json")
    assert job.code == 0, job.err
    assert [row["state"] for row in job.json["trials"]] == ["finished"] * 2
    assert re.search(r"pair 16x16-N1: cosine \d\.\d\d, excess ", job.err), job.err
    record = Record(cluster.record, cluster.storage.as_uri())
    assert {"pairs", "report"} <= {run.kind for run in lookup.analyses(record, "answered")}


@pytest.mark.slow
def test_a_job_goes_on_alone_and_a_stopped_one_ends_as_interrupted(cluster: Cluster) -> None:
    long = [word for word in SMALL if not word.startswith(("images", "n_train"))]
    submitted = cluster.run(
        "gahb-sweep", "launch", "demo", *long, "images=1e7", "n_train=2", "--as", "long", "--no-wait"
    )
    assert submitted.code == 0 and "gahb-sweep stop long stops it" in submitted.err
    (job,) = re.findall(r"job (launch-\w+) on", submitted.err)
    record = Record(cluster.record, cluster.storage.as_uri())
    for _ in range(120):
        if [run.state for run in record.runs(Kind.TRIAL, sweep="long")] == ["running"]:
            break
        time.sleep(0.5)
    watching = cluster.start("gahb-sweep", "launch", "demo", *SMALL, "--as", "watched")
    assert watching.stderr is not None
    assert watching.stderr.readline().startswith("job ")
    time.sleep(3)
    watching.send_signal(2)
    left = ended(watching)
    assert left.code == 130 and "goes on; gahb-sweep stop watched stops it" in left.err
    cluster.ray("stop", job)
    assert [run.state for run in record.runs(Kind.TRIAL, sweep="long")] == ["interrupted"]
    assert "interrupted; the same command goes on from here" in cluster.ray("logs", job)
    for _ in range(120):
        if [run.state for run in record.runs(Kind.TRIAL, sweep="watched")] == ["finished"]:
            break
        time.sleep(0.5)
    assert [run.state for run in record.runs(Kind.TRIAL, sweep="watched")] == ["finished"]


@pytest.mark.slow
def test_an_analysis_as_a_job(cluster: Cluster) -> None:
    both = [word for word in SMALL if not word.startswith("subset")]
    assert cluster.run("gahb-sweep", "launch", "demo", *both, "--as", "both").code == 0
    pairs = cluster.run("gahb-analyze", "pairs", "both", "--samples", "2", "--json")
    assert pairs.code == 0, pairs.err
    assert [row["pair"] for row in json.loads(pairs.out)["pairs"]] == ["16x16-N1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "dataset=faces.npy"], "dataset=faces.npy: a job looks for it on the cluster; give its absolute path"),
        (["single_image_ray", "base=face.png"], "base=face.png: a job looks for it on the cluster"),
        (["demo", "--record", "sqlite:////tmp/r.db"], "is a file of this machine, which a job cannot use"),
        (["demo", "--storage", "here"], "--storage=here: a job looks for it on the cluster"),
        (["demo", "n_trian=1"], "did you mean 'n_train'"),
        (["demo"], "no Ray cluster to be had at http://127.0.0.1:1"),
    ],
)
def test_mistakes_end_before_anything_is_submitted(
    words: list[str], message: str, command: Callable[..., Ended]
) -> None:
    given = command("gahb-sweep", "launch", *words, "--address", "http://127.0.0.1:1")
    assert given.code == 2 and given.out == "" and len(given.err.splitlines()) == 1
    assert message in given.err


def test_neither_what_means_this_machine_only_nor_what_is_secret_travels() -> None:
    here = {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_PROFILE": "mine",
        "AWS_CONFIG_FILE": "/home/me/aws",
        "AWS_ENDPOINT_URL_S3": "https://s3.lab.org",
        "GAHB_STORAGE": "s3://bucket/gahb",
        "HOME": "/home/me",
    }
    travels = {"AWS_ENDPOINT_URL_S3", "GAHB_STORAGE"}
    assert ray_jobs._environment(None, None, here).keys() == travels
    given = ray_jobs._environment("http://127.0.0.1:5000", "/shared", here)
    assert (given["MLFLOW_TRACKING_URI"], given["GAHB_STORAGE"]) == ("http://127.0.0.1:5000", "/shared")
    tunnel = {**here, "MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:5000"}
    assert ray_jobs._environment(None, None, tunnel).keys() == travels
    with pytest.raises(UserError, match="is a file of this machine"):
        ray_jobs._environment(None, None, {"MLFLOW_TRACKING_URI": "sqlite:///here.db"})
