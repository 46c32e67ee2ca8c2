"""The sweep that goes through it all, and what became of it in the record."""

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from safetensors.torch import load_file

from gahb.tracking.record import Record
from gahb.tracking.run import Kind, Tag

NAME = "demo"

KEYS = ("images_seen", "loss", "learning_rate", "train_psnr", "test_psnr", "psnr_gap")
"""What training logs, a function of the trial alone."""
ONCE = ("images_per_second", "peak_memory_gb")
"""What a finished trial logs about its machine."""


@dataclass(frozen=True)
class Sweep:
    """Tiny trials: A and B of each N in `sizes`, so many steps each, which take about so many seconds."""

    sizes: tuple[int, ...]
    steps: int
    seconds: float

    @property
    def settings(self) -> list[str]:
        """As typed after the sweep's name."""
        sizes = ",".join(map(str, self.sizes))
        images = 32 * self.steps
        return [f"n_train={sizes}", "resolution=16", "width=8", "n_test=32", "batch_size=32", f"images={images}"]

    def command(self, *options: str) -> list[str]:
        """The launch."""
        launch = [sys.executable, "-c", "from gahb_sweeps.cli import main; main()", "launch", NAME, *self.settings]
        return [*launch, "--checkpoint-seconds", "0.5", "--json", *options]


WHOLE = Sweep((1, 2, 4, 8, 16, 32), steps=600, seconds=60)
SHORT = Sweep((16,), steps=200, seconds=15)


@dataclass(frozen=True)
class Outcome:
    """A finished trial: a digest of its weights, key → [(images seen, value), …], parameters, and the host that
    finished it."""

    weights: str
    histories: Mapping[str, list[tuple[int, float]]]
    params: Mapping[str, str]
    host: str


@dataclass
class Result:
    """What the record has of a sweep: signature → finished trial; unfinished ones by state; runs of one signature."""

    finished: dict[str, Outcome] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)


def result(record: Record) -> Result:
    """Read the sweep's runs and weights."""
    found = Result()
    for run in record.runs(Kind.TRIAL, sweep=NAME):
        found.states[run.state] += 1
        found.runs[run.signature] += 1
        if run.state == "finished":
            weights = load_file(record.artifacts(run.run_id, "weights.safetensors"))
            digest = hashlib.sha256()
            for key in sorted(weights):
                digest.update(weights[key].numpy().tobytes())
            histories = {key: record.history(run.run_id, key) for key in (*KEYS, *ONCE)}
            host = run.tags[Tag.ATTEMPT].partition("/")[0]
            found.finished[run.signature] = Outcome(digest.hexdigest(), histories, run.params, host)
    return found


@dataclass(frozen=True)
class Comparison:
    """What is wrong with a sweep beside an undisturbed one; all 0 if nothing is.

    `lost` trials that did not finish; `doubled` metrics logged twice and trials that have two runs; `gaps` metrics
    whose history differs in other ways, and trials whose parameters do; `unequal` weights.
    """

    lost: int
    doubled: int
    gaps: int
    unequal: int


def compare(undisturbed: Mapping[str, Outcome], found: Result) -> Comparison:
    """Hold a sweep against the same trials undisturbed."""
    doubled = sum(runs - 1 for runs in found.runs.values())
    gaps = unequal = 0
    for signature, expected in undisturbed.items():
        outcome = found.finished.get(signature)
        if outcome is None:
            continue
        unequal += outcome.weights != expected.weights
        gaps += outcome.params != expected.params
        for key in KEYS:
            history = outcome.histories[key]
            doubled += len(history) - len(dict(history))
            gaps += sorted(dict(history).items()) != expected.histories[key]
        for key in ONCE:
            doubled += max(0, len(outcome.histories[key]) - 1)
            gaps += not outcome.histories[key]
    lost = sum(signature not in found.finished for signature in undisturbed)
    return Comparison(lost, doubled, gaps, unequal)


def forget(record: Record) -> None:
    """Take the sweep's runs out of the record, for a next round of the same trials."""
    from mlflow import MlflowClient

    client = MlflowClient(record.uri)
    for run in record.runs(Kind.TRIAL, sweep=NAME):
        client.delete_run(run.run_id)
