"""A launch whose own Ray node dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gahb.planning.plan import plan
from gahb.tracking.run import Kind
from tests.helpers import TINY, Place, free_ports

WORDS = [f"{key}={value}" for key, value in {**TINY, "n_train": 1, "subset": "A", "images": 32 * 4000}.items()]


def start(place: Place, *words: str) -> "subprocess.Popen[str]":
    script = "from gahb_sweeps.cli import main; main()"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", script, "launch", "demo", *words, *place.flags]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_launch_ends_with_its_node_in_one_line_and_its_leases_are_free(place: Place, tmp_path: Path) -> None:
    gcs, client = free_ports(2)
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"]
    words += [f"--port={gcs}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
    words += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        while "Ray runtime started" not in (tmp_path / "head.log").read_text():
            assert head.poll() is None
            time.sleep(0.5)
        launch = start(place, *WORDS, "--address", f"127.0.0.1:{gcs}", "--checkpoint-seconds", "0")
        while not any(run.metrics for run in place.record.runs(Kind.TRIAL)):
            assert launch.poll() is None, launch.communicate()
            time.sleep(0.5)
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
    out, err = launch.communicate(timeout=30)  # Ray itself would take a minute
    assert launch.returncode == 1 and out == ""
    assert [line for line in err.splitlines() if " has died; " in line] == err.splitlines()[-1:]
    (run,) = place.record.runs(Kind.TRIAL)
    assert plan([run.trial], place.store, place.record)[0].state == "interrupted"


def test_a_ray_that_does_not_start_is_told_in_a_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", "{none")
    launch = start(place, *WORDS)
    _, err = launch.communicate()
    assert launch.returncode == 2 and err.splitlines()[-1].startswith("gahb-sweep: Ray does not start here"), err
    assert not place.record.runs(Kind.TRIAL)
