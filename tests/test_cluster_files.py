"""The cluster files against Ray's and KubeRay's schemas and a simulated AWS; the record's script for real."""

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from gahb_sweeps import resolution_scaling

from gahb.execution import worker_types
from gahb.planning.placement import GPU_MEMORY, place
from tests.helpers import free_ports

ROOT = Path(__file__).parent.parent
FILES = ("cluster.yaml", "cluster.local.yaml")
TYPED = ("cluster.yaml", "cluster/rayjob.yaml")
"""Those that name worker types."""
SCRIPT = ROOT / "cluster" / "mlflow.sh"


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def starts(config: dict[str, Any]) -> dict[str, str]:
    """The `ray start` command of head and workers."""
    found = {}
    for node in ("head", "worker"):
        (found[node],) = [line for line in config[f"{node}_start_ray_commands"] if "ray start" in line]
    return found


def test_ray_accepts_the_file(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    validate_config(prepare_config(config))


def test_whatever_a_file_mounts_exists(config: dict[str, Any]) -> None:
    sources = set(config["file_mounts"].values()) - {"~/.ray/auth_token"}
    assert all((ROOT / source).exists() for source in sources)
    packages = {"gahb", "sweeps", "analysis", "pyproject.toml", "README.md", "LICENSE", "constraints.txt", "cluster"}
    assert sources == packages, "what a node needs to install gahb, and neither data nor .git"


def test_every_shell_and_start_command_has_the_settings(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "gahb-record").mkdir()
    (tmp_path / "gahb-record" / "env").write_text("export MLFLOW_TRACKING_URI=http://10.0.0.1:5000\n")
    (tmp_path / ".bashrc").write_text("# mine\n")
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(command: str) -> str:
        return subprocess.run(["bash", "-c", command], env=home, check=True, capture_output=True, text=True).stdout

    for _ in range(2):
        run(config["setup_commands"][0])
    assert (tmp_path / ".bashrc").read_text() == "# mine\n. ~/.gahb\n"
    asked = "$RAY_AUTH_MODE $GAHB_STORAGE $MLFLOW_TRACKING_URI ${PATH%%:*} $RAY_TMPDIR $RAY_enable_metrics_collection"
    found = run(f". ~/.bashrc; echo {asked}").split()
    storage = "/shared/gahb" if config["provider"]["type"] == "local" else "s3://my-bucket/gahb"
    own = f"/tmp/gahb-{os.getuid()}"
    assert found == ["token", storage, "http://10.0.0.1:5000", f"{tmp_path}/venv/bin", own, "0"]


def test_every_connection_needs_the_token(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for command in starts(config).values():
        assert re.search(r"export RAY_AUTH_MODE=token\b.*ray start", command)


def test_nothing_but_ray_s_own_ports_is_open(config: dict[str, Any]) -> None:
    head, worker = starts(config).values()
    assert "--dashboard-host=127.0.0.1" in head and "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert set(re.findall(r"--(?:[\w-]+-)?port=\d+", head + worker)) == {"--port=6379", "--object-manager-port=8076"}
    assert "0.0.0.0" not in "".join((ROOT / name).read_text() for name in (*FILES, "cluster/mlflow.sh"))


def test_one_exact_ray_everywhere() -> None:
    named = {}
    for name in FILES:
        (line,) = [line for line in read(name)["setup_commands"] if "'ray[" in line]
        named[name] = re.findall(r"'ray\[default,tune\]==([\d.]+)'", line)
        assert "$HOME/gahb[cluster,s3,lsun]" in line
    named["Dockerfile"] = re.findall(
        r"ARG BASE=rayproject/ray:([\d.]+)-py312-gpu\nFROM \${BASE}", (ROOT / "cluster/Dockerfile").read_text()
    )
    named["rayjob"] = [read("cluster/rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"]]
    assert len({tuple(versions) for versions in named.values()}) == 1 and len(named["rayjob"]) == 1, named


def test_no_secret_is_in_a_file() -> None:
    for name in (*FILES, "cluster/rayjob.yaml", "cluster/mlflow.sh", "cluster/Dockerfile"):
        for line in (ROOT / name).read_text().splitlines():
            assert not re.search(r"AKIA\w{16}|[0-9a-f]{32}|[A-Za-z0-9+/]{40}", line), line
            for value in re.findall(r"(?i)(?:password|secret|token|key)\w*\s*[=:]\s*([^\s{}]+)", line):
                assert re.match(r"""["']?[$~<…%\\]|token\b|required\b|false$|…|MLFLOW_|AWS_|[\w-]+\.pem""", value), line


def test_on_aws_the_head_keeps_the_record_and_spot_workers_train() -> None:
    config = read("cluster.yaml")
    head, *workers = config["available_node_types"].values()
    assert config["head_node_type"] == "head" and head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"] and len(workers) == 2
    for node in (head, *workers):
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert head["node_config"]["IamInstanceProfile"]["Name"] == "gahb-head"
    for worker in workers:
        node = worker["node_config"]
        assert worker["min_workers"] == 0 and node["InstanceMarketOptions"]["MarketType"] == "spot"
        assert node["IamInstanceProfile"]["Name"] == "gahb-worker"
        assert node["ImageId"].endswith("/ami-id") and node["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
    assert config["max_workers"] == sum(worker["max_workers"] for worker in workers)
    disk = head["node_config"]["BlockDeviceMappings"][0]["Ebs"]
    assert disk["DeleteOnTermination"] is False and disk["Encrypted"]
    assert config["idle_timeout_minutes"] <= 15


def test_locally_the_older_autoscaler_starts_every_worker() -> None:
    config = read("cluster.local.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    assert "RAY_enable_autoscaler_v2=0" in starts(config)["head"]


def test_the_record_is_up_before_ray(config: dict[str, Any]) -> None:
    *_, record, ray = config["head_start_ray_commands"]
    assert record.endswith("bash ~/gahb/cluster/mlflow.sh start") and "ray start" in ray
    assert all(command.startswith(". ~/.gahb;") for command in (record, ray))


AWS = r"""#!/bin/sh
printf '%s\0' "$@" >> calls && printf '\n\0' >> calls
case "$*" in
  *create-security-group*) echo GROUP ;;
  *get-role*) echo arn:aws:iam::123456789012:role/gahb-worker ;;
esac
"""


def aws_commands(folder: Path) -> list[list[str]]:
    """The `aws` commands of docs/cluster.md as a shell runs them, with GROUP for the security group that they make."""
    (folder / "bin").mkdir()
    (folder / "bin" / "aws").write_text(AWS)
    (folder / "bin" / "aws").chmod(0o755)
    page = (ROOT / "docs" / "cluster.md").read_text()
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "aws iam create-role" in block)
    path = {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", block], cwd=folder, env=path, check=True, capture_output=True)
    calls = (folder / "calls").read_text().split("\n\0")[:-1]
    return [call.removesuffix("\0").split("\0") for call in calls]


def policies(commands: list[list[str]], role: str) -> list[dict[str, Any]]:
    """The statements of all policies that the commands give to a role."""
    found = []
    for words in commands:
        if words[1] == "put-role-policy" and words[words.index("--role-name") + 1] == role:
            found += json.loads(words[words.index("--policy-document") + 1])["Statement"]
    return found


def allowed(statements: list[dict[str, Any]], action: str, resource: str, **context: str) -> bool:
    """Whether statements allow an action on a resource; a context's keys have _ for : and / and -."""
    for statement in statements:
        assert statement["Effect"] == "Allow" and statement.keys() <= {"Effect", "Action", "Resource", "Condition"}
        conditions = statement.get("Condition", {"StringEquals": {}})
        assert list(conditions) == ["StringEquals"]
        if (
            any(fnmatch.fnmatchcase(action, pattern) for pattern in several(statement["Action"]))
            and any(fnmatch.fnmatchcase(resource, pattern) for pattern in several(statement["Resource"]))
            and all(
                context.get(re.sub("[:/-]", "_", key)) in several(values)
                for key, values in conditions["StringEquals"].items()
            )
        ):
            return True
    return False


def several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def run_on_moto(commands: list[list[str]]) -> str:
    """Run `aws` commands by boto3, and return the security group that they made."""
    import boto3
    from botocore import xform_name

    group = ""
    for service, operation, *options in commands:
        client = boto3.client({"s3api": "s3"}.get(service, service), region_name="us-west-2")
        method = operation.replace("-", "_")
        shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape
        members = {f"--{xform_name(name, '-')}": name for name in shape.members}
        given = {}
        for option, value in zip(options[::2], options[1::2], strict=True):
            if option not in ("--query", "--output"):
                plain, name = value.replace("GROUP", group), members[option]
                if shape.members[name].type_name == "structure":
                    given[name] = dict([plain.split("=")])
                else:
                    given[name] = plain if shape.members[name].type_name == "string" else json.loads(plain)
        if operation != "create-service-linked-role":  # moto knows it for other services only
            group = getattr(client, method)(**given).get("GroupId", group)
    return group


def requests(operation: str, given: dict[str, Any], tagged: bool) -> list[tuple[str, str, dict[str, str]]]:
    """What a call to EC2 needs: (action, resource, context) each."""
    arn = "arn:aws:ec2:us-west-2:123456789012:"
    if operation != "RunInstances":
        tag = {"aws_ResourceTag_ray_cluster_name": "gahb"} if tagged else {}
        ids = given.get("InstanceIds") or given.get("Resources") or [""]
        of_one = [f"ec2:{operation}", f"{arn}instance/{ids[0]}"]
        return [(of_one[0], of_one[1], tag)]
    (tags,) = given["TagSpecifications"]
    assert tags["ResourceType"] == "instance"
    named = {f"aws_RequestTag_{tag['Key'].replace('-', '_')}": tag["Value"] for tag in tags["Tags"]}
    others = ["subnet/x", "key-pair/x", "network-interface/x", "volume/x", "spot-instances-request/x"]
    return [
        ("ec2:RunInstances", f"{arn}instance/x", {"ec2_InstanceType": given["InstanceType"], **named}),
        ("ec2:RunInstances", "arn:aws:ec2:us-west-2::image/ami-1", {}),
        *(("ec2:RunInstances", f"{arn}security-group/{group}", {}) for group in given["SecurityGroupIds"]),
        *(("ec2:RunInstances", arn + other, {}) for other in others),
        ("ec2:CreateTags", f"{arn}instance/x", {"ec2_CreateAction": "RunInstances"}),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/gahb-worker", {"iam_PassedToService": "ec2.amazonaws.com"}),
    ]


@pytest.mark.slow
def test_aws_would_start_every_type_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And let in ssh from the named network alone, and the head do all that its autoscaler does."""
    moto = pytest.importorskip("moto")
    for key, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    monkeypatch.chdir(ROOT)
    (tmp_path / ".ssh").mkdir()
    with moto.mock_aws():
        import boto3
        from botocore.client import BaseClient
        from ray.autoscaler._private.commands import _bootstrap_config
        from ray.autoscaler._private.providers import _get_node_provider
        from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND

        ec2 = boto3.client("ec2", region_name="us-west-2")
        with pytest.raises(AssertionError):  # the file's security group is yet to be named
            _bootstrap_config(read("cluster.yaml"), no_config_cache=True)
        assert "Failed to detect a security group" in capsys.readouterr().err
        commands = aws_commands(tmp_path)
        made = run_on_moto(commands)
        written = yaml.safe_load((ROOT / "cluster.yaml").read_text().replace("sg-00000000000000000", made))
        config = _bootstrap_config(written, no_config_cache=True)
        types = config["available_node_types"]
        assert types["head"]["resources"]["CPU"] == 0
        for name, of_file in read("cluster.yaml")["available_node_types"].items():
            assert of_file["resources"].items() <= types[name]["resources"].items(), "what the file says stays"
        for name in ("gpu-24gb", "gpu-96gb"):
            (instance,) = ec2.describe_instance_types(InstanceTypes=[types[name]["node_config"]["InstanceType"]])[
                "InstanceTypes"
            ]
            resources, ram = types[name]["resources"], instance["MemoryInfo"]["SizeInMiB"] * 2**20
            assert resources["CPU"] == instance["VCpuInfo"]["DefaultVCpus"]
            assert resources["GPU"] == instance["GpuInfo"]["Gpus"][0]["Count"]
            assert 0.8 * ram < resources["memory"] < 0.9 * ram
        provider = _get_node_provider(config["provider"], config["cluster_name"])
        head = [
            {**statement, "Resource": [arn.replace("GROUP", made) for arn in several(statement["Resource"])]}
            for statement in policies(commands, "gahb-head")
        ]
        calls: list[tuple[str, dict[str, Any]]] = []
        call = BaseClient._make_api_call

        def noted(client: Any, operation: str, given: dict[str, Any]) -> Any:
            calls.append((operation, given))
            return call(client, operation, given)

        monkeypatch.setattr(BaseClient, "_make_api_call", noted)
        for kind, node in types.items():
            calls.clear()
            tags = {TAG_RAY_NODE_KIND: kind, TAG_RAY_LAUNCH_CONFIG: kind}
            provider.create_node(node["node_config"], tags, 1)
            if kind != "head":
                (node_id,) = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: kind})
                provider.set_node_tags(node_id, {"ray-node-status": "up-to-date"})
                provider._update_node_tags()
                assert {"RunInstances", "CreateTags", "DescribeInstances"} <= {operation for operation, _ in calls}
                for operation, given in calls:
                    for action, resource, context in requests(operation, given, tagged=True):
                        assert allowed(head, action, resource, **context), (action, resource, context)
        instances = [r["Instances"][0] for r in ec2.describe_instances()["Reservations"]]
        lifecycle = {i["InstanceType"]: i.get("InstanceLifecycle") for i in instances}
        assert lifecycle == {"m7i.xlarge": None, "g6.2xlarge": "spot", "g7e.2xlarge": "spot"}
        assert {i["MetadataOptions"]["HttpTokens"] for i in instances} == {"required"}
        assert {group["GroupId"] for i in instances for group in i["SecurityGroups"]} == {made}
        (group,) = ec2.describe_security_groups(GroupIds=[made])["SecurityGroups"]
        outside = [(rule["FromPort"], rule["IpRanges"]) for rule in group["IpPermissions"] if rule["IpRanges"]]
        assert [(port, [r["CidrIp"] for r in ranges]) for port, ranges in outside] == [(22, ["203.0.113.0/24"])]
        calls.clear()
        workers = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "gpu-24gb"})
        provider.terminate_nodes(workers)
        (ended,) = (given for operation, given in calls if operation in ("StopInstances", "TerminateInstances"))
        for operation in ("StopInstances", "StartInstances", "TerminateInstances"):
            ((action, resource, context),) = requests(operation, ended, tagged=True)
            assert allowed(head, action, resource, **context) and not allowed(head, action, resource)
        started = tmp_path / "ray_bootstrap_config.yaml"  # what the head's autoscaler, and so gahb, is given
        started.write_text(yaml.safe_dump(config))
        assert worker_types.of_file(str(started)) == worker_types.of_file(str(ROOT / "cluster.yaml"))


def test_kuberay_accepts_the_job() -> None:
    job = read("cluster/rayjob.yaml")
    jsonschema.validate(job, json.loads((Path(__file__).parent / "kuberay_rayjob.json").read_text()))
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["backoffLimit"] > 0
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert [group["minReplicas"] for group in groups] == [0, 0] and spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    for template in (spec["rayClusterSpec"]["headGroupSpec"]["template"], *(group["template"] for group in groups)):
        assert template["spec"]["restartPolicy"] == "Never", "as the newer autoscaler demands"
        (container,) = template["spec"]["containers"]
        assert template["metadata"]["labels"] == {"app": "gahb"}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        for variable in container["env"]:
            secret = re.search("PASSWORD|KEY|USERNAME", variable["name"])
            assert bool(secret) == ("secretKeyRef" in variable.get("valueFrom", {})), variable


def test_the_autoscaler_on_kubernetes_knows_what_a_pod_will_have() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as derive

    spec = read("cluster/rayjob.yaml")["spec"]["rayClusterSpec"]
    types = derive({"metadata": {"name": "gahb", "namespace": "default"}, "spec": spec})["available_node_types"]
    assert types.pop("headgroup")["resources"]["CPU"] == 0
    assert {name: (node["resources"], node["max_workers"]) for name, node in types.items()} == {
        "gpu-24gb": ({"CPU": 7, "GPU": 1, "memory": 28 * 2**30, "accelerator_type:L4": 1}, 8),
        "gpu-80gb": ({"CPU": 15, "GPU": 1, "memory": 120 * 2**30, "accelerator_type:H100": 1}, 4),
    }


@pytest.mark.parametrize("name", TYPED)
def test_every_trial_of_resolution_scaling_fits_and_the_small_ones_on_the_small_gpu(name: str) -> None:
    workers = worker_types.of_file(str(ROOT / name))
    small = workers[0].name
    for precision in ("float32", "bfloat16"):
        trials = resolution_scaling.trials({"precision": precision})
        placed = [(trial.dataset.resolution, place(trial, workers, cpus=1).worker.name) for trial in trials]
        assert len(placed) == 48
        assert {where for resolution, where in placed if resolution < 160} == {small}


def test_every_kind_of_gpu_is_one_that_ray_and_gahb_know() -> None:
    from ray.util.accelerators import accelerators

    known = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    kinds = {worker.kind for name in TYPED for worker in worker_types.of_file(str(ROOT / name))}
    assert kinds == {"L4", "H100", "RTX-PRO-6000"} and kinds <= known & GPU_MEMORY.keys()


def test_the_script_is_sound() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert os.access(SCRIPT, os.X_OK)
    shown = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert shown.returncode == 2 and "mlflow.sh start" in shown.stderr
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


class TheRecord:
    """What `mlflow.sh` starts, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.folder = folder / "record"
        self.uri = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GAHB_RECORD": str(self.folder),
            "GAHB_RECORD_HOST": "127.0.0.1",
            "GAHB_RECORD_PORT": str(port),
            "GAHB_STORAGE": str(folder / "storage"),
        }

    def script(self, word: str) -> str:
        command = ["bash", SCRIPT, word]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def status(self, path: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.uri + path, headers=headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def log(self, value: float) -> None:
        """Log a metric and an artifact as a shell does that has sourced `env`, and read it back."""
        code = f"""
import mlflow
mlflow.set_experiment("x")
with mlflow.start_run() as run:
    mlflow.log_metric("a", {value})
    mlflow.log_text("hello", "hello.txt")
assert mlflow.get_run(run.info.run_id).data.metrics == {{"a": {value}}}
"""
        shell = f". {self.folder}/env; exec {sys.executable} -c '{code}'"
        subprocess.run(["bash", "-c", shell], check=True, capture_output=True)

    def values(self) -> list[float]:
        code = "import mlflow; print(sorted(mlflow.search_runs(experiment_names=['x'])['metrics.a']))"
        shell = f'. {self.folder}/env; exec {sys.executable} -c "{code}"'
        return json.loads(subprocess.run(["bash", "-c", shell], check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[TheRecord]:
    pytest.importorskip("flask_wtf", reason="accounts need mlflow[auth]")
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("no PostgreSQL here")
    if os.getuid() == 0:  # the database's owner is another user, who passes through the folders above
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o711)
    record = TheRecord(tmp_path)
    record.script("start")
    yield record
    record.script("stop")


@pytest.mark.slow
def test_the_record_runs_refuses_strangers_and_survives(record: TheRecord) -> None:
    secrets = ("admin-password", "gahb-password", "secret-key", "auth.ini", "env", "log")
    assert {oct((record.folder / name).stat().st_mode & 0o777) for name in secrets} == {"0o600"}
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert record.status("/health") == 200 and record.status(search) == 401
    assert record.status(search, Authorization="Basic YWRtaW46cGFzc3dvcmQxMjM0") == 401  # admin:password1234
    assert record.status("/", Host="elsewhere.org") == 403
    record.log(1.5)
    assert list((record.folder.parent / "storage" / "artifacts").rglob("hello.txt"))

    password = (record.folder / "gahb-password").read_text()
    record.script("start")  # as `ray up` does again and again
    for process in ("postmaster", "mlflow"):
        os.kill(pid_of(record, process), signal.SIGKILL)
    for _ in range(120):
        time.sleep(0.5)
        if answers(record):
            break
    record.log(2.5)
    record.script("stop")
    record.script("start")  # as after a reboot
    assert record.values() == [1.5, 2.5] and (record.folder / "gahb-password").read_text() == password


def pid_of(record: TheRecord, process: str) -> int:
    if process == "postmaster":
        return int((record.folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    port = record.uri.rpartition(":")[2]
    group = int((record.folder / "pid").read_text())
    for entry in Path("/proc").glob("[0-9]*"):
        words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.exists() else []
        if "mlflow" in words and port in words and os.getpgid(int(entry.name)) == group:
            return int(entry.name)
    raise LookupError(process)


def answers(record: TheRecord) -> bool:
    """Whether the server is up, with its database."""
    shell = f". {record.folder}/env; curl --silent --fail --user $MLFLOW_TRACKING_USERNAME:$MLFLOW_TRACKING_PASSWORD "
    shell += "$MLFLOW_TRACKING_URI/api/2.0/mlflow/experiments/search?max_results=1"
    return subprocess.run(["bash", "-c", shell], capture_output=True).returncode == 0
