"""Another user of the same machine, who looks for secrets, and for files that somebody else will run.

Other break-ins of docs/security.md: by accounts of the record in test_intruders_record.py, by files in
test_intruders_files.py, on clusters in test_intruders_cluster.py.
"""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gahb.errors import UserError
from gahb.own_folder import own_folder
from gahb.storage.s3 import Bucket
from tests.growing import Growing, growing
from tests.helpers import TINY, Ended, Place

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NOBODY = 65534

SECRETS = {"AWS_SECRET_ACCESS_KEY": "aws-3f9c1d", "MLFLOW_TRACKING_PASSWORD": "mlflow-7b2e80"}
as_nobody = pytest.mark.skipif(os.getuid() != 0, reason="to act as another user takes root")

SPY = """
trap exit TERM
while true; do
  grep -D skip -rlsf $1/secrets /tmp/ray/session_latest/ /tmp/gahb-*
  ps axww -o args | grep -f $1/secrets
  sleep 1
done
"""
"""What it finds until it is told to end: the names of files and the command lines with secrets that it may read."""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A temporary folder of several users."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def nobody(script: str, *words: object) -> "subprocess.Popen[str]":
    command = ["/bin/sh", "-c", script, "spy", *map(str, words)]
    return subprocess.Popen(command, user=NOBODY, group=NOBODY, extra_groups=(), stdout=-1, stderr=-3, text=True)


def said_by_nobody(script: str, *words: object) -> str:
    return nobody(script, *words).communicate()[0]


def gahb(*words: str, **env: str) -> Ended:
    """A command in a process of its own."""
    command = [BIN / words[0], *words[1:]]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def refused(ended: Ended, message: str) -> None:
    assert ended.code == 2 and ended.out == "", ended
    (line,) = ended.err.splitlines()
    assert message in line, line


def holding(folder: Path, *secrets: str) -> list[Path]:
    """The files in a folder that hold a secret."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    return [file for file in files if any(secret.encode() in file.read_bytes() for secret in secrets)]


@contextlib.contextmanager
def spied(folder: Path) -> Iterator[Callable[[], str]]:
    """What nobody finds in a block; to be asked at its end."""
    (folder / "secrets").write_text("".join(f"{secret}\n" for secret in SECRETS.values()))
    with nobody(SPY, folder) as spy:

        def found() -> str:
            spy.terminate()
            assert spy.stdout is not None
            return spy.stdout.read()

        try:
            yield found
        finally:
            spy.terminate()


@as_nobody
def test_no_secret_is_in_a_file_or_a_command_line_that_others_may_read(place: Place, shared: Path) -> None:
    """They were in Ray's logs, of mode 0644, and among the arguments of the process that starts workers."""
    settings = [f"{key}={value}" for key, value in {**TINY, "images": 640}.items()]
    with spied(shared) as found:
        launched = gahb("gahb-sweep", "launch", "demo", *settings, "n_train=1", "subset=A", *place.flags, **SECRETS)
        assert launched.code == 0 and found() == "", launched
    for folder in (place.storage, own_folder()):
        left = ["grep", "-D", "skip", "-rls", *(f"-e{secret}" for secret in SECRETS.values()), folder]
        assert subprocess.run(left, capture_output=True, text=True, check=False).stdout == ""


@as_nobody
def test_the_spy_finds_what_is_there(shared: Path) -> None:
    secret = SECRETS["AWS_SECRET_ACCESS_KEY"]
    with spied(shared) as found, subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=-1) as leaky:
        time.sleep(2)
        leaky.communicate(b"\n")
        assert secret in found()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    with growing(tmp_path_factory.mktemp("cluster"), {"cpu": {"CPU": 2, "memory": 4e9}}, token="5e" * 32) as found:
        yield found


ASK = """
import os, sys

def seen(item, device):
    return {key: os.environ.get(key) for key in item}

if __name__ == "__main__":
    from gahb.execution import connection, ray_cluster
    import ray
    with connection.connected(sys.argv[1]):
        ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
        [(_, found)] = ray_cluster.map_unordered(seen, [sys.argv[2:]])
        command_lines = os.popen("ps axww -o args").read()
    print(found, *[value in command_lines for value in found.values()])
"""


def test_workers_of_a_cluster_have_access_that_no_file_and_no_command_line_has(
    cluster: Growing, tmp_path: Path
) -> None:
    """It was in the runtime_env, and so in the nodes' logs and command lines."""
    (tmp_path / "ask.py").write_text(ASK)
    env = {**os.environ, **cluster.env, **SECRETS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "ask.py", cluster.address, *SECRETS]
    asked = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert asked.stdout == f"{SECRETS} False False\n", asked
    assert holding(cluster.files, *SECRETS.values()) == []


def test_a_job_takes_no_secret_along(cluster: Growing, tmp_path: Path) -> None:
    """A job's environment is shown by `ray job list` to whoever has the token, and stood in a command line."""
    where = ["--address", cluster.server, "--record", "http://127.0.0.1:9", "--storage", str(tmp_path)]
    launched = gahb("gahb-sweep", "launch", "demo", "n_train=1", *where, **cluster.env, **SECRETS)
    assert launched.code == 2 and "job launch-" in launched.err, launched
    jobs = gahb("ray", "job", "list", "--address", cluster.server, **cluster.env)
    assert "GAHB_STORAGE" in jobs.out and not any(secret in jobs.out for secret in SECRETS.values())
    assert holding(cluster.files, *SECRETS.values()) == []


def test_a_password_in_an_address_does_not_travel_with_a_job(place: Place) -> None:
    given = ["--address", "http://127.0.0.1:1", "--record", "http://bob:mlflow-7b2e80@lab.org:5000", "--storage", "/s"]
    ended = gahb("gahb-sweep", "launch", "demo", *given)
    refused(ended, "has a password, which others could read on the cluster")
    assert "mlflow-7b2e80" not in ended.err


@as_nobody
def test_nobody_gets_into_ray_s_session(ray_here: None) -> None:
    """Its folders are open to everybody, and code that workers run is unpacked in them."""
    import ray

    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    assert said_by_nobody('ls "$1" && touch "$1/runtime_resources/x"; echo "$?"', session).strip() == "2"
    assert stat.S_IMODE(session.stat().st_mode) == 0o777 and not (session / "runtime_resources/x").exists()


COMPILE = """
import torch
from gahb.training.compilation import compiled
assert compiled(lambda x: 2 * x + 1, torch.device("cpu"))(torch.ones(3)).tolist() == [3, 3, 3]
"""


@as_nobody
def test_what_compilers_keep_is_not_in_a_folder_that_somebody_else_made(shared: Path) -> None:
    """Inductor takes the first torchinductor_USER that it finds, and runs the code that it finds in it."""
    said_by_nobody('mkdir -m 777 "$1/torchinductor_root"', shared)
    env = {key: value for key, value in os.environ.items() if not key.startswith("TORCHINDUCTOR")}
    command = [sys.executable, "-c", COMPILE]
    subprocess.run(command, env={**env, "TMPDIR": str(shared), "USER": "root"}, cwd=ROOT, check=True)
    assert list((shared / "torchinductor_root").rglob("*")) == []
    assert list((shared / f"gahb-{os.getuid()}/torchinductor_root").rglob("*.so"))
    assert {path.name for path in shared.iterdir()} == {"torchinductor_root", f"gahb-{os.getuid()}"}


@as_nobody
@pytest.mark.parametrize(
    ("trap", "message"),
    [
        ("mkdir -m 777 $1", "belongs to another user"),
        ("mkdir $1.d && ln -s $1.d $1", "is a link"),
        ("touch $1", "is a link or a file"),
    ],
)
def test_a_folder_that_nobody_made_first_is_not_taken(shared: Path, place: Place, trap: str, message: str) -> None:
    own = shared / f"gahb-{os.getuid()}"
    said_by_nobody(trap, own)
    refused(gahb("gahb-sweep", "launch", "demo", *place.flags, TMPDIR=str(shared)), message)
    assert said_by_nobody('find "$1" -type f ! -empty', shared) == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(shared))
        with pytest.raises(UserError, match=message), Bucket("bucket", "prefix").scratch():
            pass


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o711])
def test_a_folder_that_was_open_is_not_taken(shared: Path, mode: int) -> None:
    own = own_folder(root=shared)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.chmod(mode)
    with pytest.raises(UserError, match="others may enter"):
        own_folder("more", root=shared)


def test_a_temporary_folder_in_which_others_may_rename_is_not_taken(shared: Path) -> None:
    shared.chmod(0o777)
    with pytest.raises(UserError, match="others may replace what is in"):
        own_folder(root=shared)


def test_a_bucket_s_name_leads_nowhere_else(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    with Bucket("bucket", "../../elsewhere").scratch() as folder:
        assert folder.parent.parent == shared / f"gahb-{os.getuid()}/buckets"


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_token_that_others_may_read_is_not_used(place: Place, scheme: str) -> None:
    """As `ray get-auth-token --generate` leaves it under the usual umask."""
    (place.folder / ".ray").mkdir()
    token = place.folder / ".ray/auth_token"
    token.write_text("5e" * 32)
    token.chmod(0o644)
    env = {"HOME": str(place.folder), "RAY_AUTH_MODE": "token"}
    record = "http://127.0.0.1:9" if scheme else place.record.uri
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        flags = ["--address", address, "--record", record, "--storage", str(place.storage)]
        refused(gahb("gahb-sweep", "launch", "demo", *flags, **env), f"others may read {token}")


def documented(file: str) -> str:
    """The command with which a file says that the token is made."""
    (line, *_) = [line for line in (ROOT / file).read_text().splitlines() if "get-auth-token --generate" in line]
    start = line.index("(umask")
    return line[start : line.index(")", start) + 1]


@pytest.mark.parametrize("file", ["cluster.yaml", "cluster.local.yaml", "docs/cluster.md", "cluster/slurm.sh"])
def test_the_token_that_is_made_as_documented_is_its_owner_s_alone(tmp_path: Path, file: str) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", f"umask 022; {documented(file)}"], env=env, check=True, capture_output=True)
    assert stat.S_IMODE((tmp_path / ".ray/auth_token").stat().st_mode) == 0o600
