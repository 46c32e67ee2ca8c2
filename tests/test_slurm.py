"""`cluster/slurm.sh` on a real SLURM of two hosts, each a set of namespaces with a slurmd."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.hosts import PROGRAMS, Host, build_network, enclosure, make_key, missing, until

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "cluster" / "slurm.sh"
NEEDED = PROGRAMS | {"sbatch": "slurm-wlm", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge"}

CONFIGURATION = """
ClusterName=test
SlurmctldHost=n1
SlurmUser=root
AuthInfo=socket={folder}/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
KillWait=30
ReturnToService=2
NodeName=n[1-2] CPUs=2 RealMemory=6000 Gres=gpu:1
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=60
"""


class Slurm:
    """A SLURM of the hosts n1 and n2, whose GPUs are files; n1 is also where users log in.

    Args:
        folder: for everything, with a short path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        build_network()
        make_key(folder)
        settings = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/record.db",
            "GAHB_STORAGE": str(folder / "storage"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            **{k: v for k, v in os.environ.items() if k == "PYTHONPATH"},
        }
        self.hosts = [Host(f"n{i}", i, folder, settings) for i in (1, 2)]
        self.login = self.hosts[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
        (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        (folder / "hosts").write_text("".join(f"{h.address} {h.name}\n" for h in self.hosts) + "127.0.0.1 localhost\n")
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        names = {"key-file": "munge.key", "socket": "munge", "pid-file": "munge.pid", "log-file": "munge.log"}
        files = [f"--{option}={folder / name}" for option, name in {**names, "seed-file": "munge.seed"}.items()]
        subprocess.run(["munged", "--force", *files], check=True, capture_output=True)
        for host in self.hosts:
            host.boot()
            host.run("mount", "--bind", folder / "hosts", "/etc/hosts")
        self.login.run("slurmctld", "-i")
        for host in self.hosts:
            host.run("slurmd")
        until(lambda: self.run("sinfo", "-h", "-o", "%D %t").split() == ["2", "idle"], 60, "both hosts are idle")

    def run(self, *command: str | Path, check: bool = True) -> str:
        return self.login.run(*command, check=check).stdout

    def submit(self, *words: str) -> int:
        """Submit the template with options and a command; the job's number."""
        return int(self.run("sbatch", "--parsable", "--cpus-per-task=1", "--mem=2500", *words))

    def job(self, number: int) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S+)", self.run("scontrol", "show", "job", str(number))))

    def end(self, number: int) -> tuple[str, str, str]:
        """State, exit code and log of a job that has ended, and left nothing on the hosts."""
        job = until(lambda: self.ended(number), 600, f"job {number} ends")
        for host in self.hosts:
            until(lambda host=host: host.run("pgrep", "raylet", check=False).returncode, 30, "Ray ends")
        return job["JobState"], job["ExitCode"], (self.login.home / f"gahb-{number}.log").read_text()

    def ended(self, number: int) -> dict[str, str] | None:
        job = self.job(number)
        return None if job["JobState"] in ("PENDING", "RUNNING", "COMPLETING") else job

    def trials(self, sweep: str) -> list[dict[str, Any]]:
        """A sweep's trials in the record."""
        return list(json.loads(self.run("gahb-sweep", "status", sweep, "--json"))["trials"])


TINY = ["width=8", "n_train=1", "n_test=16"]


def sweep_and_pairs(slurm: Slurm) -> dict[str, Any]:
    """What becomes of a sweep on two hosts and of its analysis on one."""
    launch = ["--nodes=2", str(SCRIPT), "gahb-sweep", "launch", "demo", *TINY, "images=6400"]
    pairs = ["--nodes=1", "--gres=none", str(SCRIPT), "gahb-analyze", "pairs", "demo", "--samples=2"]
    return {
        "trained": slurm.end(slurm.submit("--time=10", *launch)),
        "paired": slurm.end(slurm.submit("--time=10", *pairs)),
        "token": oct((slurm.login.home / ".ray" / "auth_token").stat().st_mode & 0o777),
        "left": [
            path
            for host in slurm.hosts
            for path in host.run("find", "/tmp", "/tmp/gahb-0", "-maxdepth", "1", "-name", "*ray*").stdout.split()
        ],
    }


def time_limit(slurm: Slurm) -> dict[str, Any]:
    """What becomes of a sweep whose time is over within a minute, once it trains, and of the same command again."""
    launch = [str(SCRIPT), "gahb-sweep", "launch", "demo", *TINY, "images=300000", "--checkpoint-seconds=1"]
    job = slurm.submit("--time=20", "--signal=B:INT@30", *launch)

    def trains() -> bool:
        found = slurm.run("gahb-sweep", "status", "demo", "--json", check=False)
        return bool(found) and all((trial["images_seen"] or 0) > 4096 for trial in json.loads(found)["trials"])

    until(trains, 300, "both trials train")
    minutes = int(slurm.job(job)["RunTime"].split(":")[1]) + 1
    slurm.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    limited, interrupted = slurm.end(job), slurm.trials("demo")
    resumed = slurm.end(slurm.submit("--time=20", *launch))
    logs = [slurm.run("gahb-sweep", "logs", trial["run_id"]) for trial in interrupted]
    return {"limited": limited, "interrupted": interrupted, "resumed": resumed, "logs": logs} | {
        "finished": slurm.trials("demo")
    }


def of(scenario: Callable[[Slurm], dict[str, Any]]) -> dict[str, Any]:
    """What a scenario found on a SLURM that lasts as long as it."""
    if reason := missing(NEEDED):
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # sockets have short paths
    command = enclosure([sys.executable, "-m", "tests.test_slurm", scenario.__name__, str(folder)])
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.slow
def test_a_sweep_and_its_analysis_run_on_slurm() -> None:
    found = of(sweep_and_pairs)
    assert found["trained"][:2] == ["COMPLETED", "0:0"], found["trained"]
    assert found["paired"][:2] == ["COMPLETED", "0:0"] and "excess" in found["paired"][2], found["paired"]
    assert found["token"] == "0o600" and found["left"] == []


@pytest.mark.slow
def test_the_time_limit_interrupts_a_launch_and_the_next_job_goes_on() -> None:
    found = of(time_limit)
    assert found["limited"][:2] == ["FAILED", "130:0"] and "goes on from here" in found["limited"][2], found["limited"]
    assert {trial["state"] for trial in found["interrupted"]} == {"interrupted"}
    assert found["resumed"][:2] == ["COMPLETED", "0:0"], found["resumed"]
    assert {trial["state"] for trial in found["finished"]} == {"finished"}
    for log in found["logs"]:
        first, second = (int(step) for step in re.findall(r"try 1 from step (\d+)", log))
        assert first == 0 and second * 32 >= 4096, log


def test_the_template_says_what_it_lacks() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert os.access(SCRIPT, os.X_OK)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)
    for given, lacking in (({}, "GAHB_STORAGE"), ({"GAHB_STORAGE": "/shared"}, "MLFLOW_TRACKING_URI")):
        path = {"PATH": os.environ["PATH"]}
        ended = subprocess.run([SCRIPT, "true"], env=path | given, capture_output=True, text=True)
        assert ended.returncode and lacking in ended.stderr


if __name__ == "__main__":
    _, name, folder = sys.argv
    print(json.dumps({"sweep_and_pairs": sweep_and_pairs, "time_limit": time_limit}[name](Slurm(Path(folder)))))
