"""Hosts on one machine: sets of namespaces with an address, processes, mounts and a name each, joined by a bridge.

The program itself runs in namespaces of its own (`enclosure`): it reaches neither the machine's network nor processes
of others, and when it ends, in whatever way, the kernel ends all that it started.
"""

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NETWORK = ipaddress.ip_network("10.77.0.0/24")
BRIDGE = "chaos0"
PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "sshd": "openssh-server",
    "rsync": "rsync",
    "unshare": "util-linux",
}
"""Program → the Debian package that has it."""
NAMESPACES = ("--net", "--mount", "--uts", "--pid")
UNSHARE = ("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc")

INIT = """
set -e
hostname {name}
for path in {visible}; do
  mkdir -p {tmp}$path
  mount --rbind $path {tmp}$path
done
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind {folder}/passwd /etc/passwd
mount --rbind {tmp}/tmp /tmp
read go
exec {sshd} -D -e -f {folder}/sshd_config
"""
"""What the first process of a host does. Everything in /tmp is its own, except for what the code is run from."""


def missing(programs: Mapping[str, str]) -> str | None:
    """Why there can be no hosts here, in one line; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = {package for program, package in programs.items() if not find(program)}
    if absent:
        return f"programs are missing: apt-get install {' '.join(sorted(absent))}"
    if subprocess.run([*UNSHARE, "ip", "link", "add", BRIDGE, "type", "bridge"], capture_output=True).returncode:
        return "this machine permits no namespaces or bridges"
    return None


def find(program: str) -> str | None:
    """The path of a program, also of one that only root's PATH or PostgreSQL's folder has."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which(program, path=os.pathsep.join(folders))


def enclosure(command: Sequence[str]) -> list[str]:
    """A command that runs another in namespaces of its own, and ends with whoever started it."""
    return ["setpriv", "--pdeathsig=KILL", *UNSHARE, *command]


def build_network() -> None:
    """The bridge that joins the hosts, in this process's own network; this process is the last address on it."""
    for line in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"address add {NETWORK[-2]}/{NETWORK.prefixlen} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ):
        subprocess.run(["ip", *line.split()], check=True)


class Host:
    """A host: boots, loses power, loses its network.

    Args:
        name: of up to eight letters.
        number: the last part of its address.
        folder: of all hosts, for home, logs and sshd's files.
        environment: variables of every login and command on it.
    """

    def __init__(self, name: str, number: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.address = name, str(NETWORK[number])
        self.folder, self.home = folder / name, folder / name / "home"
        self.link = f"to-{name}"
        self.boots = 0
        (self.home / ".ssh").mkdir(parents=True)
        path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/sbin:/usr/bin:/sbin:/bin"))
        self.environment = {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **environment}
        exports = "".join(f"export {key}='{value}'\n" for key, value in self.environment.items())
        (self.home / ".profile").write_text(exports)
        others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
        (self.folder / "passwd").write_text("\n".join([f"root:*:0:0:root:{self.home}:/bin/bash", *others, ""]))
        (self.folder / "sshd_config").write_text(
            f"HostKey {folder}/key\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\nUsePAM no\nMaxStartups 100\n"
        )

    def boot(self) -> None:
        """Switch the host on; returns when it can be reached."""
        self.boots += 1
        tmp = self.folder / f"tmp{self.boots}"
        (tmp / "tmp").mkdir(parents=True)
        (tmp / "tmp").chmod(0o1777)
        roots = {self.folder.parent, Path.cwd(), *map(Path, (sys.prefix, sys.base_prefix)), *map(Path, sys.path)}
        visible = [str(path) for path in sorted(roots) if path.is_dir() and path.is_relative_to("/tmp")]
        init = INIT.format(name=self.name, visible=" ".join(visible), tmp=tmp, folder=self.folder, sshd=find("sshd"))
        with (self.folder / "sshd.log").open("a") as log:
            self._unshare = subprocess.Popen([*UNSHARE, "sh", "-c", init], stdin=subprocess.PIPE, stderr=log, text=True)
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self.init = until(lambda: int(children.read_text() or 0), 10, f"{self.name} boots")
        self.namespace = Path(f"/proc/{self.init}/ns/pid").readlink()
        _ip(f"link add {self.link} type veth peer name eth0 netns {self.init}")
        _ip(f"link set {self.link} master {BRIDGE} up")
        for line in (
            "link set lo up",
            f"address add {self.address}/{NETWORK.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {NETWORK[-2]}",
        ):
            subprocess.run(["nsenter", f"--target={self.init}", "--net", "ip", *line.split()], check=True)
        assert self._unshare.stdin is not None
        self._unshare.stdin.write("go\n")
        self._unshare.stdin.close()
        until(lambda: reachable(self.address, 22), 10, f"sshd on {self.name}")

    def lose_power(self) -> None:
        """End everything on the host at once; nobody on the network hears of it."""
        _ip(f"link delete {self.link}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._unshare.wait()

    def cut(self) -> None:
        """Take the host off the network."""
        _ip(f"link set {self.link} down")

    def heal(self) -> None:
        """Put it back on the network."""
        _ip(f"link set {self.link} up")

    def narrow(self, rate: str) -> None:
        """Let no more than a rate, such as 200kbit, through its line in either direction."""
        self._shape("replace", f"tbf rate {rate} burst 16kb latency 1s")

    def widen(self) -> None:
        """Lift the limit."""
        self._shape("delete")

    def _shape(self, verb: str, discipline: str = "") -> None:
        subprocess.run(["tc", *f"qdisc {verb} dev {self.link} root {discipline}".split()], check=True)
        self.run("tc", *f"qdisc {verb} dev eth0 root {discipline}".split())

    def refuse(self, port: int) -> None:
        """AnalysisResult every packet to a port with a reset, as if nothing listened there."""
        self.run("nft", "add table inet chaos { chain in { type filter hook input priority 0; }; }")
        self.run("nft", f"add rule inet chaos in tcp dport {port} reject with tcp reset")

    def accept(self) -> None:
        """AnalysisResult again."""
        self.run("nft", "delete table inet chaos")

    def processes(self) -> list[tuple[int, str]]:
        """(process id as this process sees it, command line) of what runs on the host."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "ns/pid").readlink() == self.namespace:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append((int(folder.name), command))
        return found

    def signal(self, number: int, word: str) -> int:
        """Send a signal to the host's processes whose command line has a word; returns how many."""
        found = [pid for pid, command in self.processes() if word in command]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(found)

    def run(self, *command: str | Path, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command on the host until it ends."""
        done = subprocess.run(
            self._enter(command), env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command: str | Path, log: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command on the host; stdout and stderr go to a file of its folder."""
        with (self.folder / log).open("a") as stream:
            return subprocess.Popen(
                self._enter(command), env={**self.environment, **environment}, stdout=stream, stderr=subprocess.STDOUT
            )

    def _enter(self, command: Sequence[str | Path]) -> list[str]:
        return ["nsenter", f"--target={self.init}", *NAMESPACES, f"--wdns={self.home}", *map(str, command)]


def make_key(folder: Path) -> None:
    """The key that every host has and lets in."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)


def reachable(address: str, port: int) -> bool:
    """Whether something listens there; an OSError says why not."""
    socket.create_connection((address, port), timeout=1).close()
    return True


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)


def until(probe: Callable[[], T], seconds: float, what: str) -> T:
    """The first true result of a probe that is asked again and again; an OSError counts as false.

    Raises:
        TimeoutError: there was none for so many seconds.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if result := probe():
                return result
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds:g} s")
