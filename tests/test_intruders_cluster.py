"""Attempts on a cluster's nodes, its record's folder, its ports and its rights, by the files that are shipped."""

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
import yaml

from chaos.cluster import ENVIRONMENT, Cluster
from chaos.hosts import PROGRAMS, Host, build_network, enclosure, make_key, missing
from tests.test_cluster_files import FILES, ROOT, SCRIPT, allowed, aws_commands, policies, read, starts

NOBODY = 65534

PLANTS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda place, elsewhere: place.symlink_to(elsewhere),
    "open to others": lambda place, elsewhere: (place.mkdir(), place.chmod(0o777)),
    "another user's": lambda place, elsewhere: (place.mkdir(mode=0o700), os.chown(place, NOBODY, NOBODY)),
}
"""What an intruder makes first where the user's own folder would be."""


def planted(name: str, place: Path, elsewhere: Path) -> None:
    if name == "another user's" and os.getuid() != 0:
        pytest.skip("only root makes folders of others")
    elsewhere.mkdir()
    PLANTS[name](place, elsewhere)


def programs(folder: Path, **scripts: str) -> dict[str, str]:
    """An environment whose PATH begins with such shell scripts; what `ray` is told is noted in `told`."""
    folder.mkdir()
    for name, script in {"ray": 'printf "%s\\n" "$RAY_TMPDIR" "$@" >> "$HOME/told"', **scripts}.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder.parent)}


@pytest.mark.parametrize("plant", [None, *PLANTS])
@pytest.mark.parametrize("node", ["head", "worker"])
@pytest.mark.parametrize("name", FILES)
def test_ray_starts_in_no_folder_of_others(name: str, node: str, plant: str | None, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    own = tmp_path / "tmp" / f"gahb-{os.getuid()}"
    if plant:
        planted(plant, own, tmp_path / "elsewhere")
    environment = programs(tmp_path / "bin")
    (tmp_path / ".gahb").write_text("")
    command = starts(read(name))[node].replace("TMPDIR=/tmp", f"TMPDIR={tmp_path}/tmp")
    command = command.replace("ulimit -n 65536", "true")
    ended = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    if plant:
        assert ended.returncode == 2 and ended.stderr.startswith("gahb: ") and str(own) in ended.stderr
        assert ended.stderr.count("\n") == 1 and not (tmp_path / "told").exists()
        return
    folder, word, *options = (tmp_path / "told").read_text().splitlines()
    assert ended.returncode == 0 and folder == str(own) and word == "start"
    assert own.stat().st_mode & 0o777 == 0o700
    assert node == "head" or f"--temp-dir={own}/ray" in options, "else the head's folder, unchecked"


@pytest.mark.parametrize("plant", [None, *PLANTS])
def test_a_job_of_slurm_keeps_its_session_from_others(plant: str | None, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    own = tmp_path / "tmp" / f"gahb-{os.getuid()}"
    if plant:
        planted(plant, own, tmp_path / "elsewhere")
    environment = programs(tmp_path / "bin", srun='shift; exec "$@"', timeout="exit 1")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    script = tmp_path / "slurm.sh"
    written = (ROOT / "cluster" / "slurm.sh").read_text().replace("TMPDIR=/tmp", f"TMPDIR={tmp_path}/tmp")
    script.write_text(written.replace("\n' &\n", "\n'\n"))  # the node ends before its job
    environment |= {"SLURM_JOB_ID": "99999999", "SLURM_PROCID": "0", "SLURM_CPUS_PER_TASK": "1"}
    environment |= {"SLURM_MEM_PER_NODE": "1000", "GAHB_STORAGE": "/shared", "MLFLOW_TRACKING_URI": "http://record"}
    ended = subprocess.run(["bash", script, "true"], env=environment, capture_output=True, text=True)
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    if plant:
        assert not (tmp_path / "told").exists() and "gahb: " in ended.stderr and str(own) in ended.stderr
        return
    told = (tmp_path / "told").read_text().splitlines()
    assert f"--temp-dir={own}/ray-99999999" in told and own.stat().st_mode & 0o777 == 0o700
    assert list(own.iterdir()) == [], "removed at the end"


def record_of_others(name: str, folder: Path, elsewhere: Path) -> None:
    """An intruder's preparation of the folder that `mlflow.sh` would use."""
    if name in PLANTS:
        planted(name, folder, elsewhere)
        return
    elsewhere.mkdir()
    folder.mkdir(mode=0o711)
    if name == "a link in it":
        (folder / "auth.ini").symlink_to(elsewhere / "auth.ini")
    else:
        (folder / "admin-password").write_text("known")
        (folder / "admin-password").chmod(0o666)


@pytest.mark.parametrize("plant", [*PLANTS, "a link in it", "a file in it that others may write"])
@pytest.mark.parametrize("end", ["", "/"])
def test_the_record_lies_in_no_folder_of_others(plant: str, end: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "record", tmp_path / "elsewhere"
    record_of_others(plant, folder, elsewhere)
    before = [(path, path.lstat().st_mode) for path in (*tmp_path.iterdir(), *folder.iterdir())]
    environment = programs(tmp_path / "bin", initdb="exit 3", setpriv="exit 3")  # nothing starts, whatever comes
    environment |= {"GAHB_RECORD": f"{folder}{end}", "GAHB_STORAGE": str(tmp_path / "storage")}
    environment |= {"GAHB_RECORD_HOST": "127.0.0.1"}
    ended = subprocess.run(["bash", SCRIPT, "start"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and str(folder) in ended.stderr
    assert before == [(path, path.lstat().st_mode) for path, _ in before] and not list(elsewhere.iterdir())
    assert not (folder / "secret-key").exists()


def test_the_head_s_role_touches_nothing_of_others(tmp_path: Path) -> None:
    """What whoever took over the head would try with its keys."""
    commands = aws_commands(tmp_path)
    head, worker = policies(commands, "gahb-head"), policies(commands, "gahb-worker")
    arn = "arn:aws:ec2:us-west-2:123456789012:"
    for action in ("TerminateInstances", "StopInstances", "StartInstances", "CreateTags"):
        assert not allowed(head, f"ec2:{action}", f"{arn}instance/i-1")
        assert not allowed(head, f"ec2:{action}", f"{arn}instance/i-1", aws_ResourceTag_ray_cluster_name="other")
        assert allowed(head, f"ec2:{action}", f"{arn}instance/i-1", aws_ResourceTag_ray_cluster_name="gahb")
    for action in ("ec2:CreateTags", "ec2:ModifyInstanceAttribute", "ec2:AuthorizeSecurityGroupIngress"):
        assert not allowed(head, action, f"{arn}security-group/GROUP", aws_ResourceTag_ray_cluster_name="gahb")
    ours = {"aws_RequestTag_ray_cluster_name": "gahb"}
    assert allowed(head, "ec2:RunInstances", f"{arn}instance/x", ec2_InstanceType="g6.2xlarge", **ours)
    assert not allowed(head, "ec2:RunInstances", f"{arn}instance/x", ec2_InstanceType="g6.2xlarge")
    assert not allowed(head, "ec2:RunInstances", f"{arn}instance/x", ec2_InstanceType="p5.48xlarge", **ours)
    assert not allowed(head, "ec2:RunInstances", f"{arn}security-group/sg-open")
    parameter = "arn:aws:ssm:us-west-2:"
    assert allowed(head, "ssm:GetParameters", f"{parameter}:parameter/aws/service/canonical/ubuntu/x")
    assert not allowed(head, "ssm:GetParameters", f"{parameter}123456789012:parameter/production/password")
    role = "arn:aws:iam::123456789012:role/"
    assert not allowed(head, "iam:PassRole", f"{role}admin", iam_PassedToService="ec2.amazonaws.com")
    assert not allowed(head, "iam:PassRole", f"{role}gahb-worker", iam_PassedToService="lambda.amazonaws.com")
    for role_s in (head, worker):
        assert allowed(role_s, "s3:GetObject", "arn:aws:s3:::my-bucket/gahb/x")
        assert not allowed(role_s, "s3:GetObject", "arn:aws:s3:::my-bucket/other")
    assert not allowed(worker, "ec2:DescribeInstances", "*")


def test_instances_give_their_role_s_keys_for_a_token_and_take_ssh_from_a_named_network() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    for kind, node in read("cluster.yaml")["available_node_types"].items():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required", kind
        assert node["node_config"]["SecurityGroupIds"], "else Ray makes one that lets in ssh from 0.0.0.0/0"
    assert "SSH_FROM=203.0.113.0/24" in page and "0.0.0.0" not in page


def test_nothing_that_was_just_downloaded_is_run_unseen() -> None:
    for path in (ROOT / name for name in (*FILES, "cluster/Dockerfile", "cluster/slurm.sh", "cluster/mlflow.sh")):
        assert not re.search(r"\|\s*(sudo )?(ba|z)?sh\b", path.read_text()), path
    for name in FILES:
        (line,) = (line for line in read(name)["setup_commands"] if "cluster/uv.txt" in line)
        assert "--require-hashes" in line
    pins = (ROOT / "cluster" / "uv.txt").read_text()
    assert (
        re.search(r"^uv==[\d.]+ \\$", pins, re.MULTILINE)
        and len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", pins)) == 2
    )


def test_pods_have_no_privileges_and_let_in_their_own_alone() -> None:
    spec = read("cluster/rayjob.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    templates.append(spec["submitterPodTemplate"])
    containers = [container for template in templates for container in template["spec"]["containers"]]
    for container in (*containers, cluster["autoscalerOptions"]):
        assert container["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    assert {container["image"] for container in containers} == {"REGISTRY/gahb@sha256:DIGEST"}
    accounts = [template["spec"].get("automountServiceAccountToken", True) for template in templates]
    assert accounts == [True, False, False, False], "the head alone, for its autoscaler"
    policy = read("cluster/network-policy.yaml")["spec"]
    (own, operator) = policy["ingress"]
    selector = {"matchLabels": {"app": "gahb"}}
    assert policy["podSelector"] == selector and policy["policyTypes"] == ["Ingress"]
    assert own == {"from": [{"podSelector": selector}]}, "of this namespace"
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert all("kuberay-operator" in str(peer["podSelector"]) for peer in operator["from"])
    assert {str(template["metadata"]["labels"]) for template in templates} == {str(selector["matchLabels"])}


ASK = """
import json, subprocess, sys
import grpc
# of each kind of server one call; a server that does not know it says UNIMPLEMENTED
CALLS = ["NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVGet", "ObjectManagerService/Push",
    "NodeManagerService/GetNodeStats", "CoreWorkerService/GetCoreWorkerStats", "ReporterService/GetTraceback",
    "RayletDriver/ClusterInfo"]
found = {}
for line in subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout.splitlines():
    place = line.split()[3]
    host, _, port = place.rpartition(":")
    if port == "22":
        continue
    name = "127.0.0.1" if host in ("127.0.0.1", "[::ffff:127.0.0.1]") else sys.argv[1]
    http = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", f"http://{name}:{port}/metrics"]
    answers = {subprocess.run(http, capture_output=True, text=True).stdout}
    with grpc.insecure_channel(f"{name}:{port}") as channel:
        for call in CALLS if answers == {"000"} else []:
            try:
                channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=5)
                answers.add("ANSWERS")
            except grpc.RpcError as error:
                answers.add(error.code().name)
    found[f"{name}:{port}"] = sorted(answers)
print(json.dumps(found))
"""
"""Ask all that listens on a host, without a token."""

ACTOR = """
import ray
ray.init("auto", log_to_driver=False)
@ray.remote(num_cpus=0)
class Waits:
    def up(self):
        return len(ray.nodes())
print("nodes", ray.get(Waits.options(name="waits", lifetime="detached").remote().up.remote()))
"""


def ray_up(folder: Path) -> dict[str, Any]:
    """What `ray up cluster.local.yaml` leaves on a head and a worker: files, commands that find Ray, open ports."""
    build_network()
    make_key(folder)
    head, worker, laptop = (Host(name, i + 1, folder, ENVIRONMENT) for i, name in enumerate(("head", "one", "laptop")))
    for host in (head, worker, laptop):
        host.boot()
    cluster = Cluster([head, worker], laptop, folder / "key")
    config = yaml.safe_load(cluster.file.read_text())
    config["setup_commands"] = read("cluster.local.yaml")["setup_commands"][:1]
    cluster.file.write_text(yaml.safe_dump(config))
    cluster.up()

    def login(host: Host, command: str) -> str:
        return host.run("bash", "-c", f". ~/.gahb; {command}").stdout

    job = "ray job submit --address http://127.0.0.1:8265 -- python -c 'import ray; ray.init(); print(ray.nodes())'"
    found = {
        "auto": [
            login(host, f"python -c '{ACTOR.replace('waits', host.name)}'").split()[-1] for host in (head, worker)
        ],
        "status": login(head, "ray status"),
        "job": login(head, job),
        "asked": {host.name: json.loads(host.run("python", "-c", ASK, host.address).stdout) for host in (head, worker)},
        "modes": [host.run("stat", "-c", "%a %F", "/tmp/gahb-0").stdout.strip() for host in (head, worker)],
        "open": [host.run("sh", "-c", "ls -d /tmp/ray || true").stdout for host in (head, worker)],
    }
    login(head, "ray stop --force")
    return {**found, "left": head.run("pgrep", "raylet", check=False).stdout}


@pytest.mark.slow
def test_a_cluster_s_ports_answer_nobody_without_the_token_and_its_sessions_are_closed() -> None:
    if reason := missing(PROGRAMS):
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="up-"))
    folder.chmod(0o755)
    command = enclosure([sys.executable, "-m", "tests.test_intruders_cluster", str(folder)])
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["auto"] == ["2", "2"] and "succeeded" in found["job"] and "Active" in found["status"]
    assert found["modes"] == ["700 directory"] * 2 and found["open"] == ["", ""] and found["left"] == ""
    for name, asked in found["asked"].items():
        assert len(asked) > 5, name
        for place, answers in asked.items():
            refused = answers == ["401"] or "UNAUTHENTICATED" in answers
            assert refused and not {"200", "ANSWERS"} & set(answers), f"{place} of {name}: {answers}"


if __name__ == "__main__":
    print(json.dumps(ray_up(Path(sys.argv[1]))))
