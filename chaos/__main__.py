"""Run a sweep on several hosts through failures: `python -m chaos`, as root.

It holds the sweep against one on a single machine, lets failures happen at random times, writes what became of the
trials to RESULTS.md, and ends with status 1 if a trial, a metric or a weight was not as undisturbed.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos import failures, hosts, services

DEFAULTS = {"rounds": 20, "cut": 60.0, "writers": 64}
"""What is done if nothing is asked for."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="rounds with failures [20, if neither --cut nor --writers is given]")
    parser.add_argument("--cut", type=float, help="cut one host's network for so many seconds [60]")
    parser.add_argument("--writers", type=int, help="so many processes write to the record at once [64]")
    parser.add_argument("--seed", type=int, default=1, help="of the failures and their times [1]")
    parser.add_argument("--each", type=int, default=2, help="failures a round [2]")
    parser.add_argument("--only", choices=[f.name for f in failures.FAILURES], help="this kind of failure alone")
    parser.add_argument("--outage", type=float, default=15, help="seconds that a service or a network is gone [15]")
    parser.add_argument("--against", help="a record that has the sweep undisturbed [it is run on one machine]")
    parser.add_argument("--short", action="store_true", help="two hosts, two trials, no ssh, PostgreSQL or S3")
    parser.add_argument("--keep", action="store_true", help="keep the logs in the temporary folder")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if all(getattr(options, key) is None for key in DEFAULTS):
        vars(options).update(DEFAULTS)
    return options


def main() -> int:
    options = arguments()
    if options.inside:
        return inside(options)
    if reason := hosts.missing({**hosts.PROGRAMS, **({} if options.short else services.PROGRAMS)}):
        print(f"chaos: skipped: {reason}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="gahb-chaos-"))
    folder.chmod(0o755)  # PostgreSQL does not run as root
    command = hosts.enclosure([sys.executable, "-m", "chaos", *sys.argv[1:], "--inside", str(folder)])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return subprocess.run(command).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        if options.keep:
            print(f"chaos: logs are in {folder}", file=sys.stderr)
        else:
            time.sleep(0.5)  # the last of what was killed may still write
            shutil.rmtree(folder, ignore_errors=True)


def inside(options: argparse.Namespace) -> int:
    """The program proper, in namespaces of its own."""
    from chaos import report, rounds, sweep, writers
    from chaos.rounds import say
    from chaos.world import World

    begun = time.monotonic()
    whole = not options.short
    launched = sweep.WHOLE if whole else sweep.SHORT
    world = World(options.inside, 3 if whole else 2, whole, launched, options.outage)
    os.environ.update(world.access)
    say(f"{len(world.cluster.hosts)} hosts, up after {time.monotonic() - begun:.0f} s")
    found: list[rounds.Round | writers.Load] = []

    def keep(part: str, text: str) -> None:
        if whole:
            report.keep(part, text)

    if options.rounds is not None or options.cut:
        expected = sweep.result(world.on_one_machine(options.against)).finished
        usual, undisturbed = launched.seconds, []
        if whole:
            undisturbed = [rounds.play(world, 0, options.seed, [], expected, usual)]
            say(report.of_rounds(undisturbed))
            usual = undisturbed[0].seconds
    if options.rounds is not None:
        played = [*undisturbed]
        drawn = failures.draw(random.Random(options.seed), options.rounds, options.each, whole, options.only)
        for number, kinds in enumerate(drawn, 1):
            seed = 1000 * options.seed + number
            played.append(rounds.play(world, number, seed, kinds, expected, usual))
            say(report.of_rounds(played[-1:]))
            keep("rounds", report.of_rounds(played))
        print(report.of_rounds(played))
        found += played
    if options.cut:
        world.outage = options.cut
        kinds = [failure for failure in failures.FAILURES if failure.name == "network cut"]
        played = [*undisturbed, rounds.play(world, 1, options.seed, kinds, expected, usual)]
        print(report.of_rounds(played))
        keep("cut", f"For {options.cut:g} s.\n\n{report.of_rounds(played)}")
        found += played
    if options.writers:
        load = writers.measure(world.server.uri, options.writers)
        print(report.of_load(load))
        keep("writers", report.of_load(load))
        found.append(load)
    return int(not all(part.good for part in found))


sys.exit(main())
