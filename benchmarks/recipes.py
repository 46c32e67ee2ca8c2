"""Recipes of training against the paper's, by the images that they need: `python -m benchmarks.recipes [FACES]`.

What is missing of its trials is launched, into the record and the storage that the environment names, and RECIPES.md is
written from the record. The paper's recipe is Adam with an annealed rate, one training for each length; the others keep
a constant rate and average the weights, so that each evaluation of one training stands for a length. Rates are chosen
on the same held-out images for both, with the first seed.
"""

import csv
import io
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from gahb_analysis.models import Model, load
from gahb_analysis.pair import compare
from gahb_analysis.scaling import crossing

from gahb import hardware
from gahb.cli import say
from gahb.denoising.levels import INPUT_PSNR
from gahb.denoising.psnr import Curve, average_over_sigma
from gahb.execution.analysis import AnalysisContext
from gahb.execution.launch import launch
from gahb.planning.plan import plan
from gahb.storage.base import record_uri, storage_here
from gahb.tracking.record import Record
from gahb.tracking.run import Run
from gahb.training.loop import Evaluation, has_ended
from gahb.training.weights import read_weight_history
from gahb.trial import Trial

PAGE = Path(__file__).parent / "RECIPES.md"
SWEEP = "recipes"

LENGTHS = (16_384, 65_536)
SHORTER = (4_096, 8_192, 16_384, 32_768)
SEEDS = (0, 1, 2)
LEVELS = tuple(range(0, 43, 6))
MANY, FEW = 4096, 30
NARROW = 4
"""Channels of a network that settles."""
SIZES = (10, 30, 100, 300, 1000)
SAMPLES = 32
FIRST_OF_COURSE = 2000
"""Images before which a course is no match for a training of its own."""

INTRODUCTION = """\
# Recipes of training

Written by `python -m benchmarks.recipes FACES.npy`, on {device}. UNets of width 16, one block, batches of 32, N = 4096
where nothing else is said, float32; PSNR in dB averaged over σ, on 256 held-out images. Means over three seeds ± their
standard deviation. Rates are the best of three on the same held-out images, for annealed and averaged alike. Averaged
means `schedule=constant ema=0.05 evaluations=2`.
"""

COMMON = {"batch_size": 32, "width": 16, "n_test": 256, "n_train": MANY}
COURSE: dict[str, Any] = {"schedule": "constant", "ema": 0.05, "evaluations": 2}


@dataclass(frozen=True)
class Recipe:
    """A way to train: its settings, and the rates of which the best is taken; `annealed` for each length anew."""

    name: str
    settings: Mapping[str, Any]
    rates: Sequence[float]
    annealed: bool = False

    @property
    def lengths(self) -> Sequence[int]:
        return LENGTHS if self.annealed else LENGTHS[-1:]


ADAM_RATES, MUON_RATES = (2e-3, 4e-3, 8e-3), (8e-3, 1.6e-2, 3.2e-2)
ANNEALED = (
    Recipe("Adam, halving (the paper's)", {"schedule": "halving"}, ADAM_RATES, annealed=True),
    Recipe("Adam, cosine", {"schedule": "cosine"}, ADAM_RATES, annealed=True),
)
AVERAGED = (
    Recipe("Adam", COURSE, (4e-3, 8e-3, 1.6e-2)),
    Recipe("Adam, β₂ = 0.95", {**COURSE, "beta2": 0.95}, (4e-3, 8e-3, 1.6e-2)),
    Recipe("Muon", {**COURSE, "optimizer": "muon"}, MUON_RATES),
    Recipe("Muon, weight 1/σ", {**COURSE, "optimizer": "muon", "weighting": "inverse_sigma"}, (1.6e-2,)),
    Recipe(
        "Muon, lognormal σ, weight 1/σ",
        {**COURSE, "optimizer": "muon", "weighting": "inverse_sigma", "noise_law": "lognormal"},
        (1.6e-2,),
    ),
)
MUON = AVERAGED[2]


@dataclass
class Bench:
    """The trials on one data set.

    Args:
        name: in the tables.
        dataset: its keys.
    """

    name: str
    dataset: Mapping[str, Any]
    storage: Any = field(default_factory=lambda: storage_here(None))

    @property
    def record(self) -> Record:
        return Record(record_uri(None), self.storage.url)

    def trial(self, **settings: Any) -> Trial:
        return Trial.of({**COMMON, **self.dataset, **settings})

    def runs(self, trials: Sequence[Trial]) -> list[Run]:
        """The finished trials, launched where they are missing."""
        trials = list(dict.fromkeys(trials))
        rows = launch(trials, SWEEP, storage=self.storage, record=self.record, say=say)
        if any(row["state"] != "finished" for row in rows):
            sys.exit("not all trials have finished; the same command goes on")
        return [p.run for p in plan(trials, self.storage, self.record) if p.run]

    def curves(self, run: Run) -> dict[int, tuple[tuple[float, ...], tuple[float, ...]]]:
        """Images seen → PSNR at each level on training and on held-out images."""
        text = self.record.artifacts(run.run_id, "psnr_curve.csv").read_text()
        found: dict[int, tuple[list[float], list[float]]] = {}
        for row in csv.DictReader(io.StringIO(text)):
            train, test = found.setdefault(int(row["images_seen"]), ([], []))
            train.append(float(row["train_psnr"]))
            test.append(float(row["test_psnr"]))
        return {seen: (tuple(train), tuple(test)) for seen, (train, test) in found.items()}

    def first(self, recipe: Recipe, length: int) -> list[Trial]:
        """The first seed at every rate."""
        return [self.trial(**recipe.settings, images=length, learning_rate=rate) for rate in recipe.rates]

    def best(self, recipe: Recipe, length: int, by: int | None = None) -> list[Trial]:
        """All seeds at the rate that is best with the first, by the PSNR after so many images or at the end."""
        first = self.first(recipe, length)
        psnrs = [test_psnr(self.curves(run), by) for run in self.runs(first)]
        rate = first[psnrs.index(max(psnrs))].learning_rate
        settings = {**recipe.settings, "images": length, "learning_rate": rate}
        return [self.trial(**settings, seed=seed) for seed in SEEDS]

    def ends(self, recipe: Recipe, length: int) -> list[float]:
        """The held-out PSNR that the seeds reach."""
        return [test_psnr(self.curves(run)) for run in self.runs(self.best(recipe, length))]

    def muon(self, n_train: int) -> list[Trial]:
        """Two seeds of an averaged course."""
        settings = {**MUON.settings, "n_train": n_train, "images": LENGTHS[-1], "learning_rate": 1.6e-2}
        return [self.trial(**settings, seed=seed) for seed in SEEDS[:2]]

    def narrow(self, n_train: int) -> list[Trial]:
        """Two seeds of a longer course of a network that has soon learnt what it can."""
        settings = {**MUON.settings, "n_train": n_train, "images": 4 * LENGTHS[-1], "learning_rate": 1.6e-2}
        return [self.trial(**{**settings, "width": NARROW}, seed=seed) for seed in SEEDS[:2]]

    def transition(self, recipe: Recipe) -> list[Trial]:
        """A and B at each of SIZES, at the recipe's best rate for many images."""
        rate = self.best(recipe, LENGTHS[-1])[0].learning_rate
        settings = {**recipe.settings, "images": LENGTHS[-1], "learning_rate": rate}
        return [self.trial(**settings, n_train=n, subset=subset) for n in SIZES for subset in ("A", "B")]

    def separate(self, n_train: int, length: int) -> list[Trial]:
        """Muon at an annealed rate, all rates and two seeds."""
        settings = {"schedule": "cosine", "optimizer": "muon", "n_train": n_train, "images": length}
        return [self.trial(**settings, learning_rate=rate, seed=seed) for rate in MUON_RATES[:2] for seed in SEEDS[:2]]

    def train(self) -> None:
        """Launch all trials, those of the first seed before the rest."""
        every = [(recipe, length) for recipe in (*ANNEALED, *AVERAGED) for length in recipe.lengths]
        separate = [trial for n in (MANY, FEW) for length in SHORTER for trial in self.separate(n, length)]
        self.runs([*(trial for case in every for trial in self.first(*case)), *self.muon(FEW), *separate])
        self.runs([trial for case in every for trial in self.best(*case)])
        self.runs(
            [
                *self.muon(MANY),
                *self.narrow(MANY),
                *self.narrow(FEW),
                *(trial for recipe in (ANNEALED[1], MUON) for trial in self.transition(recipe)),
            ]
        )


Curves = Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]


def test_psnr(curves: Curves, images: int | None = None) -> float:
    """Averaged over σ, after so many images, or at the end."""
    return average_over_sigma(curves[images or max(curves)][1])


def images_to(curves: Curves, psnr: float) -> float:
    """Images after which a course first reaches a PSNR, interpolated in their logarithm; infinite if it does not."""
    seen = sorted(curves)
    for before, after in itertools.pairwise(seen):
        low, high = test_psnr(curves, before), test_psnr(curves, after)
        if low < psnr <= high:
            share = (psnr - low) / (high - low)
            return before * (after / before) ** share
    return math.inf


def images_table(bench: Bench) -> str:
    """What each recipe reaches, and how many images the averaged ones need for what the annealed ones reach."""
    lines = [
        f"| recipe | rate | dB after {LENGTHS[0]:,} images | after {LENGTHS[1]:,} "
        f"| images to the annealed {LENGTHS[0]:,} | factor | to the annealed {LENGTHS[1]:,} | factor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    targets = [max(mean(bench.ends(recipe, length)) for recipe in ANNEALED) for length in LENGTHS]
    for recipe in ANNEALED:
        rates = ", ".join(f"{bench.best(recipe, length)[0].learning_rate:g}" for length in LENGTHS)
        ends = " | ".join(spread(bench.ends(recipe, length)) for length in LENGTHS)
        lines.append(f"| {recipe.name} | {rates} | {ends} | | | | |")
    for recipe in AVERAGED:
        chosen = bench.best(recipe, LENGTHS[-1])
        courses = [bench.curves(run) for run in bench.runs(chosen)]
        cells = [f"{chosen[0].learning_rate:g}"]
        cells += [spread([test_psnr(course, length) for course in courses]) for length in LENGTHS]
        for length, target in zip(LENGTHS, targets, strict=True):
            needed = [images_to(course, target) for course in courses]
            cells += [whole(needed), f"{length / mean(needed):.1f}" if math.isfinite(mean(needed)) else "–"]
        lines.append(f"| {recipe.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def levels_table(bench: Bench) -> str:
    """Held-out PSNR at noise levels after the shorter of LENGTHS."""
    lines = [f"| recipe | {' | '.join(map(str, LEVELS))} |", f"|---|{'---|' * len(LEVELS)}"]
    for recipe in (*ANNEALED, *AVERAGED):
        length = LENGTHS[0] if recipe.annealed else LENGTHS[-1]
        curves = [bench.curves(run)[LENGTHS[0]][1] for run in bench.runs(bench.best(recipe, length))]
        cells = [f"{mean([curve[INPUT_PSNR.index(level)] for curve in curves]):.2f}" for level in LEVELS]
        lines.append(f"| {recipe.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def endpoints_table(bench: Bench) -> str:
    """Each of SHORTER as an evaluation of one averaged course, and as trainings of their own."""
    lines = [
        "| N | images | annealed: rate | test PSNR | gap | evaluation: test PSNR | gap | difference | of the gap |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n_train in (MANY, FEW):
        courses = [bench.curves(run) for run in bench.runs(bench.muon(n_train))]
        for length in SHORTER:
            trials = bench.separate(n_train, length)
            by_rate = {rate: [t for t in trials if t.learning_rate == rate] for rate in MUON_RATES[:2]}
            found = {rate: [bench.curves(run) for run in bench.runs(of)] for rate, of in by_rate.items()}
            rate = max(found, key=lambda rate: mean([test_psnr(curves) for curves in found[rate]]))
            separate, ours = found[rate], [{length: course[length]} for course in courses]
            psnrs = [[test_psnr(curves) for curves in ways] for ways in (separate, ours)]
            gaps = [[gap(curves) for curves in ways] for ways in (separate, ours)]
            apart = [f"{mean(b) - mean(a):+.2f}" for a, b in (psnrs, gaps)]
            cells = [f"{rate:g}", *map(spread, (psnrs[0], gaps[0], psnrs[1], gaps[1])), *apart]
            lines.append(f"| {n_train} | {length:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def settled_table(bench: Bench) -> str:
    """When `until=settled` would have ended the averaged courses, and what went on afterwards."""
    lines = [
        "| width | N | seed | ends after | of | test PSNR then, at the end | gap then, at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for trials in (of(n) for of in (bench.muon, bench.narrow) for n in (MANY, FEW)):
        for trial, run in zip(trials, bench.runs(trials), strict=True):
            course, stopping = bench.curves(run), replace(trial, until="settled")
            history = [Evaluation(seen, 0, 0, Curve(*course[seen]), 0) for seen in sorted(course)]
            seen = next(
                h[-1].images_seen for h in (history[: i + 1] for i in range(len(history))) if has_ended(stopping, h)
            )
            then = {seen: course[seen]}
            cells = [f"{test_psnr(then):.2f}, {test_psnr(course):.2f}", f"{gap(then):.2f}, {gap(course):.2f}"]
            own = [run.flat["width"], trial.n_train, trial.seed, f"{seen:,}", f"{trial.images:,}", *cells]
            lines.append(f"| {' | '.join(map(str, own))} |")
    return "\n".join(lines)


def transition_table(bench: Bench) -> str:
    """N* and pair similarity of the annealed recipe and of the averaged one, at equal images and equal train PSNR."""
    context = AnalysisContext(record_uri(None), bench.storage, torch.device("cpu"))
    ways = {recipe.name: bench.runs(bench.transition(recipe)) for recipe in (ANNEALED[1], MUON)}
    train = {
        name: {seen: mean_over(bench, runs, seen, train_psnr) for seen in common(bench, runs)}
        for name, runs in ways.items()
    }
    (annealed,), averaged = train[ANNEALED[1].name].items(), train[MUON.name]
    matched = min(averaged, key=lambda seen: abs(averaged[seen] - annealed[1]))
    lines = ["| recipe | images | train PSNR | N* | " + " | ".join(f"excess at N = {n}" for n in SIZES) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(SIZES))
    for name, seen in ((ANNEALED[1].name, annealed[0]), (MUON.name, matched), (MUON.name, annealed[0])):
        runs = ways[name]
        gaps = [mean([gap({0: bench.curves(run)[seen]}) for run in runs if run.flat["n_train"] == n]) for n in SIZES]
        alike = [f"{excess(context, [r for r in runs if r.flat['n_train'] == n], seen):.2f}" for n in SIZES]
        star = crossing(SIZES, gaps, 1.0)
        lines.append(f"| {name} | {seen:,} | {train[name][seen]:.2f} | {star:.0f} | {' | '.join(alike)} |")
    return "\n".join(lines)


def excess(context: AnalysisContext, runs: Sequence[Run], images_seen: int) -> float:
    """Pair similarity of A and B after so many images."""
    a, b = (with_weights(context, run, images_seen) for run in runs)
    return float(compare(a, b, SAMPLES, 0, context.device).summary()["excess"]["mean"])


def with_weights(context: AnalysisContext, run: Run, images_seen: int) -> Model:
    """The model of a trial as it was after so many images."""
    history = dict(read_weight_history(context.record.artifacts(run.run_id), context.device))
    return replace(load(context, run), denoiser=history[images_seen])


def common(bench: Bench, runs: Sequence[Run]) -> list[int]:
    """The evaluations that all have, but for the first ones; of annealed trials the end alone."""
    seen = sorted(set.intersection(*(set(bench.curves(run)) for run in runs)))
    return seen[-1:] if runs[0].flat["schedule"] != "constant" else [s for s in seen if s >= FIRST_OF_COURSE]


def mean_over(bench: Bench, runs: Sequence[Run], seen: int, of: Callable[[Curves], float]) -> float:
    return mean([of({seen: bench.curves(run)[seen]}) for run in runs if run.flat["n_train"] >= SIZES[-1]])


def train_psnr(curves: Curves) -> float:
    """Averaged over σ, at the end."""
    return average_over_sigma(curves[max(curves)][0])


def gap(curves: Curves) -> float:
    """The PSNR gap at the end."""
    return train_psnr(curves) - test_psnr(curves)


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.2f} ± {statistics.stdev(values):.2f}"


def whole(images: Sequence[float]) -> str:
    """Mean, least and most of numbers of images; how many never came so far."""
    if not all(map(math.isfinite, images)):
        return f"not reached by {sum(map(math.isinf, images))} of {len(images)}"
    return f"{mean(images):,.0f} ({min(images):,.0f} … {max(images):,.0f})"


SECTIONS = {
    "Images to the same PSNR": images_table,
    f"By noise level: held-out PSNR after {LENGTHS[0]:,} images, at input PSNR in dB": levels_table,
    "An evaluation of an averaged course, and trainings of that length": endpoints_table,
    "What until=settled would have left out": settled_table,
    "Where the gap closes": transition_table,
}


def main() -> None:
    benches = [Bench("C^α images, α = 2, 16×16", {"dataset": "c_alpha", "resolution": 16})]
    if sys.argv[1:]:
        benches.append(Bench("Faces, 20×20", {"dataset": sys.argv[1], "resolution": 20}))
    parts = []
    for bench in benches:
        bench.train()
        parts.append(f"## {bench.name}\n")
        parts += [f"### {heading}\n\n{table(bench)}\n" for heading, table in SECTIONS.items()]
    PAGE.write_text("\n".join([INTRODUCTION.format(device=hardware.name(torch.device("cpu"))), *parts]))


if __name__ == "__main__":
    main()
