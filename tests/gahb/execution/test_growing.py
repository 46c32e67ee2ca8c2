"""Commands on a cluster that has no worker yet, under both of Ray's autoscalers; jobs: test_ray_jobs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gahb.tracking import lookup
from gahb.tracking.record import Record
from tests.growing import SOLD_OUT, Growing, growing
from tests.helpers import TINY, Ended

SMALL = [f"{key}={value}" for key, value in {**TINY, "images": 320, "n_train": 1}.items()]
TYPES = {
    "cpu": {"CPU": 2, "memory": 4e9},
    "gpu": {"CPU": 1, "GPU": 1, "memory": 8e9, "accelerator_type:L4": 1},
    SOLD_OUT: {"CPU": 1, "GPU": 1, "memory": 64e9, "accelerator_type:H100": 1},
}
LARGE = ["resolution=160", "width=64", "n_train=1", "n_test=1", "batch_size=512", "images=512", "subset=A"]
"""A trial that fits the larger of the two GPUs only."""


@dataclass(frozen=True)
class Here:
    """A growing cluster with a record and a storage."""

    cluster: Growing
    folder: Path

    def start(self, *words: str) -> "subprocess.Popen[str]":
        module = {"gahb-sweep": "gahb_sweeps.cli", "gahb-analyze": "gahb_analysis.cli"}[words[0]]
        env = {**self.cluster.env, "GAHB_STORAGE": f"{self.folder}/s", "MLFLOW_TRACKING_URI": self.record.uri}
        command = [sys.executable, "-c", f"from {module} import main; main()", *words[1:]]
        command += ["--address", self.cluster.address]
        return subprocess.Popen(
            command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str) -> Ended:
        process = self.start(*words)
        out, err = process.communicate(timeout=180)
        return Ended(process.returncode, out, err)

    @property
    def record(self) -> Record:
        return Record(f"sqlite:///{self.folder}/record.db", (self.folder / "s").as_uri())


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("growing")
    with growing(folder, TYPES, version=request.param) as cluster:
        yield Here(cluster, folder)


def test_a_sweep_is_trained_and_paired_on_what_the_cluster_starts(here: Here) -> None:
    trained = here.run("gahb-sweep", "launch", "demo", *SMALL, "--gpus-per-trial", "0")
    assert trained.code == 0, trained.err
    assert "waiting for a node with 1 CPU and 0." in trained.err and "[2/2] 16x16-N1-" in trained.err
    again = here.run("gahb-sweep", "retry", "demo", "--gpus-per-trial", "0", "--json")
    assert [row["state"] for row in again.json["trials"]] == ["finished"] * 2


def test_what_neither_lives_nor_may_be_started_is_refused(here: Here) -> None:
    for words, needed in (
        (["--cpus-per-trial", "3"], "a trial needs 3 CPUs, and the largest node with a GPU has 1"),
        (["--gpus-per-trial", "2"], "a trial needs 2 GPUs, and the largest node with a GPU has 1"),
        (["--gpus-per-trial", "0.01"], "GB of a GPU even with activation checkpointing"),
    ):
        refused = here.run("gahb-sweep", "launch", "demo", *SMALL, "seed=1", *words)
        assert refused.code == 2 and refused.out == "" and needed in refused.err
        assert len(refused.err.splitlines()) == 1


def test_a_trial_is_granted_a_gpu_that_the_cluster_may_start(here: Here) -> None:
    granted = here.run("gahb-sweep", "launch", "demo", *SMALL, "subset=A", "seed=2", "--as", "granted")
    assert granted.code == 1
    (run,) = lookup.sweep_trials(here.record, "granted")
    assert "granted GPU 0 of " in (run.reason or "") and "cannot use it" in (run.reason or "")


def test_a_type_that_cannot_be_had_is_said(here: Here) -> None:
    with here.start("gahb-sweep", "launch", "demo", *LARGE, "--as", "waiting") as waiting:
        assert waiting.stderr is not None
        said = ""
        while f"cannot have {SOLD_OUT} now and tries again" not in said or "GPU (H100)" not in said:
            said += (line := waiting.stderr.readline())
            assert line, said
        waiting.send_signal(signal.SIGINT)
        _, rest = waiting.communicate(timeout=60)
    assert waiting.returncode == 130, rest


def test_plan_names_the_worker_type_that_each_trial_fits(here: Here) -> None:
    planned = here.run("gahb-sweep", "plan", "resolution_scaling", "n_train=1", "subset=A", "--json")
    found = {row["resolution"]: row["worker"] for row in json.loads(planned.out)["trials"]}
    assert found == {20: "gpu", 40: "gpu", 80: "gpu", 160: SOLD_OUT}
