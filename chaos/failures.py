"""What goes wrong in a round. A failure happens, lasts, and is put right by what would put it right in real life."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from chaos.hosts import until
from chaos.services import S3_PORT, START, free
from chaos.world import World

WORKER = "ray::ImplicitFunc"
"""What the command line of a process that Tune trains in begins with."""


@dataclass(frozen=True)
class Failure:
    """A kind of failure.

    Args:
        name: in the table.
        inject: lets it happen and puts it right.
        launches: how many launches it adds.
        whole: only with PostgreSQL and S3.
        on_folder: only where the storage is a folder.
    """

    name: str
    inject: Callable[[World, random.Random], None]
    launches: int = 0
    whole: bool = False
    on_folder: bool = False


def trial_worker_killed(world: World, rng: random.Random) -> None:
    """SIGKILL of one process that trains."""

    def training() -> list[int]:
        processes = [process for host in world.cluster.hosts for process in host.processes()]
        return [pid for pid, command in processes if command.startswith(WORKER)]

    world.kill(rng.choice(until(training, START, "a worker")))


def host_lost(world: World, rng: random.Random) -> None:
    """A host loses power, and is switched on again."""
    host = rng.choice(world.workers)
    host.lose_power()
    time.sleep(rng.uniform(1, world.outage))
    host.boot()
    world.cluster.rejoin(host)


def network_cut(world: World, rng: random.Random) -> None:
    """A host is off the network; what runs there goes on."""
    host = rng.choice(world.workers)
    host.cut()
    time.sleep(world.outage)
    host.heal()
    world.cluster.rejoin(host)


def driver_killed(world: World, rng: random.Random) -> None:
    """SIGKILL of the launch, and another."""
    world.kill_drivers()
    time.sleep(rng.uniform(0, 5))
    world.launch()


def head_lost(world: World, rng: random.Random) -> None:
    """The head loses power with the launch on it; it is switched on, the cluster started, the sweep launched again."""
    world.cluster.head.lose_power()
    time.sleep(rng.uniform(1, 5))
    world.cluster.head.boot()
    world.cluster.up()
    world.launch()


def two_launches(world: World, rng: random.Random) -> None:
    """The same launch a second time while the first goes on."""
    world.launch()


def record_killed(world: World, rng: random.Random) -> None:
    """SIGKILL of the MLflow server."""
    world.server.kill()
    time.sleep(world.outage)
    world.server.start()


def record_hangs(world: World, rng: random.Random) -> None:
    """The MLflow server takes requests and does not answer."""
    world.server.pause()
    time.sleep(world.outage)
    world.server.resume()


def database_crashes(world: World, rng: random.Random) -> None:
    """PostgreSQL ends in the middle of everything, and recovers."""
    assert world.database is not None
    world.database.restart()


def storage_refuses(world: World, rng: random.Random) -> None:
    """Nothing listens at the S3 server's port."""
    assert world.s3 is not None
    world.s3.host.refuse(S3_PORT)
    time.sleep(world.outage)
    world.s3.host.accept()


def storage_hangs(world: World, rng: random.Random) -> None:
    """The S3 server takes requests and does not answer."""
    assert world.s3 is not None
    world.s3.host.signal(signal.SIGSTOP, "moto_server")
    time.sleep(world.outage)
    world.s3.host.signal(signal.SIGCONT, "moto_server")


def storage_slow(world: World, rng: random.Random) -> None:
    """The line to the S3 server is narrow."""
    assert world.s3 is not None
    world.s3.host.narrow("400kbit")
    time.sleep(world.outage)
    world.s3.host.widen()


def storage_full(world: World, rng: random.Random) -> None:
    """No byte is left in the storage's folder, until somebody makes room."""
    ballast = world.shared / "ballast"
    end = time.monotonic() + world.outage
    with ballast.open("wb", buffering=0) as stream:
        while time.monotonic() < end:
            if left := free(world.shared):
                try:
                    stream.write(bytes(left))
                except OSError:
                    continue
            time.sleep(0.05)
    ballast.unlink()


FAILURES = (
    Failure("worker killed", trial_worker_killed),
    Failure("host lost", host_lost),
    Failure("network cut", network_cut),
    Failure("driver killed", driver_killed, launches=1),
    Failure("head lost", head_lost, launches=1),
    Failure("two launches", two_launches, launches=1),
    Failure("record killed", record_killed),
    Failure("record hangs", record_hangs),
    Failure("database crashes", database_crashes, whole=True),
    Failure("S3 refuses", storage_refuses, whole=True),
    Failure("S3 hangs", storage_hangs, whole=True),
    Failure("S3 slow", storage_slow, whole=True),
    Failure("storage full", storage_full, on_folder=True),
)


def draw(rng: random.Random, count: int, each: int, whole: bool, only: str | None = None) -> list[list[Failure]]:
    """Failures for a number of rounds, so many in each; every kind comes before any comes again.

    Args:
        rng: what draws.
        count: of rounds.
        each: failures in a round.
        whole: whether there are PostgreSQL and S3.
        only: the name of the one kind to draw.
    """
    possible = [f for f in FAILURES if (whole or not f.whole) and only in (None, f.name)]
    deck: list[Failure] = []
    while len(deck) < count * each:
        deck += rng.sample(possible, len(possible))
    return [deck[i * each : (i + 1) * each] for i in range(count)]
