"""Run a sweep on several hosts through failures: `python -m chaos --rounds 20 --seed 1`, as root.

It compares the sweep with one on a single machine, lets failures happen at random times, writes what became of the
trials to RESULTS.md, and ends with status 1 if a trial, a metric or a weight was not as undisturbed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos import hosts, rounds, services, sweep
from chaos.hosts import NETWORK
from chaos.rounds import Round, say
from chaos.world import World
from gahb.record import Record

RESULTS = Path(__file__).with_name("RESULTS.md")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="rounds with failures")
    parser.add_argument("--seed", type=int, default=1, help="of which failures and when")
    parser.add_argument("--each", type=int, default=2, help="failures a round")
    parser.add_argument("--outage", type=float, default=15, help="seconds that a service or network is gone")
    parser.add_argument("--short", action="store_true", help="two hosts, four trials, no ssh, PostgreSQL or S3")
    parser.add_argument("--keep", action="store_true", help="keep logs and all in the temporary folder")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.inside:
        return inside(options)
    programs = {**hosts.PROGRAMS, **({} if options.short else services.PROGRAMS)}
    if reason := hosts.missing(programs):
        print(f"chaos: skipped, {reason}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="gahb-chaos-"))
    folder.chmod(0o755)
    command = hosts.enclosure([sys.executable, "-m", "chaos", *sys.argv[1:], "--inside", str(folder)])
    try:
        return subprocess.run(command).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        if options.keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def inside(options: argparse.Namespace) -> int:
    """The program proper, in namespaces of its own."""
    sizes = sweep.SIZES[:2] if options.short else sweep.SIZES
    begun = time.monotonic()
    world = World(options.inside, 2 if options.short else 3, not options.short, sizes, options.outage)
    say(f"{len(world.cluster.hosts)} hosts up after {time.monotonic() - begun:.0f} s")
    os.environ.update(world.access)
    expected = world.on_one_machine()
    say(f"{len(expected)} trials on one machine")
    played = [rounds.play(world, 0, options.seed, [], expected, 60)]
    usual = played[0].seconds
    say(rounds.table(played, usual))
    import random

    drawn = rounds.draw(random.Random(options.seed), options.rounds, options.each, not options.short)
    for number, failures in enumerate(drawn, 1):
        say(f"round {number}: {', '.join(failure.name for failure in failures)}")
        played.append(rounds.play(world, number, 1000 * options.seed + number, failures, expected, usual))
        say(rounds.table(played[-1:], usual))
    print(rounds.table(played, usual))
    return int(not all(r.good for r in played))


sys.exit(main())
