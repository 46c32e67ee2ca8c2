"""A trial: one denoiser trained on one subset of one data set.

A trial is written flat, as `key=value` on the command line, as MLflow params and in a card:

    dataset=c_alpha alpha=2 resolution=16 architecture=unet width=16 blocks=1 n_train=64 subset=A images=19200 …

`dataset` and `architecture` choose a class each, and the keys of those classes join the trial's own. The
**signature**, a hash of everything that changes the result, names the trial everywhere.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, get_type_hints

from gahb.config_fields import check_range, flatten
from gahb.data.dataset import Dataset
from gahb.data.sources import SOURCES, Files, source_class
from gahb.errors import UserError, did_you_mean
from gahb.models.architectures import ARCHITECTURES, Architecture

SIGNATURE_VERSION = 1
"""Part of every signature. Raise it when the code changes what a trial's result is."""

SUBSETS = ("A", "B")
SCHEDULES = ("halving", "cosine")
PRECISIONS = ("float32", "bfloat16")

MOST = 10**12
"""Images that a trial may hold or see; a thousand times the paper's longest training."""

MOST_AT_ONCE = 10_000
"""Trials of a sweep."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that decides which denoiser comes out.

    Args:
        dataset: the images and their resolution.
        architecture: the network, with its hyperparameters.
        n_train: N, the number of training images.
        subset: "A" or "B", two sets of N images without a common one.
        seed: initial weights, batches and noise are functions of (seed, subset, step).
        n_test: images held out from both subsets, on which the test PSNR is measured.
        images: duration of the training in images seen (a step sees `batch_size` of them);
            0 means the paper's: 10⁹ up to 40×40, 2.5·10⁸ above (1000 epochs of 10⁶ and of 250,000).
        batch_size: images a step.
        learning_rate: Adam's, at the start.
        schedule: "halving" halves the rate after every tenth of the images (the paper's); "cosine" lowers it
            to 1 % along half a cosine.
        precision: of the activations; weights and optimizer stay in float32.
        compile: run the step through torch.compile, which changes the rounding.

    Raises:
        UserError: a value out of range, or a resolution that the architecture cannot take.
    """

    dataset: Dataset
    architecture: Architecture
    n_train: int
    subset: str = "A"
    seed: int = 0
    n_test: int = 512
    images: int = 0
    batch_size: int = 512
    learning_rate: float = 1e-3
    schedule: str = "halving"
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.images == 0:
            object.__setattr__(self, "images", 10**9 if self.dataset.resolution <= 40 else 250_000_000)
        check_range(MOST, **{key: getattr(self, key) for key in ("n_train", "n_test", "images", "batch_size")})
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate={self.learning_rate}: must be a positive number")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must lie in 0 … 2³²-1")
        for key, known in (("subset", SUBSETS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, key) not in known:
                raise UserError(f"{key}={getattr(self, key)}: must be one of {', '.join(known)}")
        self.architecture.check(self.dataset.resolution)

    @property
    def steps(self) -> int:
        """Optimizer steps: the fewest that see `images` images."""
        return math.ceil(self.images / self.batch_size)

    def flat(self) -> dict[str, Any]:
        """The trial as one level of keys and plain values; `Trial.of` is the inverse."""
        own = {key: value for key, value in flatten(self).items() if key not in ("dataset", "architecture")}
        return {**self.dataset.flat(), **self.architecture.flat(), **own}

    @classmethod
    def of(cls, flat: Mapping[str, Any]) -> "Trial":
        """The trial that the keys and values describe; keys left out take their defaults.

        Raises:
            UserError: an unknown key, a key of another data set or architecture, or a value out of range.
        """
        flat = dict(flat)
        for key, value in flat.items():
            kind = _type_of(key)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise UserError(f"{key}={value!r}: must be {KINDS[kind]}")
        for key in ("dataset", "resolution", "n_train"):
            if key not in flat:
                raise UserError(f"a trial needs {key}=…")
        dataset = dataset_of(flat)
        architecture = ARCHITECTURES[_known(flat.pop("architecture", "unet"), ARCHITECTURES, "architecture")]
        own = {k: flat.pop(k) for k in _types(cls) if k in flat}
        of_network = {k: flat.pop(k) for k in _types(architecture) if k in flat}
        if flat:
            key = next(iter(flat))
            name = dataset.flat()["dataset"]
            raise UserError(f"{key}={flat[key]} does not apply to dataset={name} architecture={architecture.name}")
        return cls(dataset=dataset, architecture=architecture.at(dataset.resolution, **of_network), **own)

    def signature(self, data_hash: str) -> str:
        """Twelve hexadecimal digits that name this trial, given the hash that names its data set.

        A data set's path is not part of it: the same images elsewhere are the same trial.
        """
        flat = {k: v for k, v in self.flat().items() if k not in self.dataset.flat()}
        content = json.dumps([SIGNATURE_VERSION, data_hash, flat], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def dataset_of(flat: dict[str, Any]) -> Dataset:
    """The data set that a flat trial describes. Its keys are taken out of `flat`.

    Raises:
        UserError: a value out of range.
    """
    name = flat.pop("dataset")
    source = source_class(name)
    options = {k: flat.pop(k) for k in _types(source) if k in flat}
    if source is Files:
        options["path"] = name
    return Dataset(source(**options), **{k: flat.pop(k) for k in _types(Dataset) if k in flat})


def grid(axes: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    """All combinations of the axes' values, as trials without repetition; the last axis varies fastest.

    Args:
        axes: key → a value, or a list or tuple of values.
        overrides: the same, in place of the axes that have the same key.

    Raises:
        UserError: a value that is refused, or too many trials.
    """
    merged = {**axes, **(overrides or {})}
    values = [v if isinstance(v, list | tuple) else [v] for v in merged.values()]
    if math.prod(map(len, values)) > MOST_AT_ONCE:
        raise UserError(f"these are {math.prod(map(len, values))} trials; a sweep has at most {MOST_AT_ONCE}")
    return list(
        dict.fromkeys(Trial.of(dict(zip(merged, combination, strict=True))) for combination in product(*values))
    )


def union(parts: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    """The trials of several grids, each of one architecture, one grid after the other.

    Among the overrides, `architecture` chooses parts, and a key of some architectures alone, such as `blocks`,
    applies to the parts whose architecture takes it. The others apply to all.

    Args:
        parts: the axes of each grid; `architecture` is one value.
        overrides: as for `grid`.

    Raises:
        UserError: an override that applies to no part.
    """
    overrides = dict(overrides or {})
    parts = _chosen(parts, overrides)
    taken = [{key for key in overrides if _takes(part["architecture"], key)} for part in parts]
    for key in overrides:
        if not any(key in keys for keys in taken):
            raise UserError(f"{key} does not apply to {', '.join(dict.fromkeys(p['architecture'] for p in parts))}")
    trials = [
        trial
        for part, keys in zip(parts, taken, strict=True)
        for trial in grid(part, {key: overrides[key] for key in overrides if key in keys})
    ]
    return list(dict.fromkeys(trials))


def _chosen(parts: Sequence[Mapping[str, Any]], overrides: dict[str, Any]) -> list[Mapping[str, Any]]:
    """The parts that the override `architecture` leaves, which is taken out of `overrides`."""
    known = list(dict.fromkeys(part["architecture"] for part in parts))
    wanted = overrides.pop("architecture", known)
    wanted = [_known(name, known, "architecture") for name in ([wanted] if isinstance(wanted, str) else wanted)]
    return [part for part in parts if part["architecture"] in wanted]


def _takes(architecture: str, key: str) -> bool:
    """Whether trials of the architecture may have the key: one of its own, or of no architecture's."""
    owners = [name for name, cls in ARCHITECTURES.items() if key in _types(cls)]
    return not owners or architecture in owners


def parse_overrides(words: Sequence[str]) -> dict[str, list[Any]]:
    """`["n_train=1,10", "images=2e6"]` → `{"n_train": [1, 10], "images": [2000000]}`.

    Raises:
        UserError: a word that is no key=value, an unknown or repeated key, or a value of the wrong type.
    """
    overrides: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not text:
            raise UserError(f"{word!r} is not of the form key=value")
        if key in overrides:
            raise UserError(f"{key} is given twice; write {key}=first,second")
        kind = _type_of(key)
        overrides[key] = [_parse(key, kind, value) for value in text.split(",")]
    return overrides


ALWAYS_NAMED = ("resolution", "n_train", "subset")


def differing(trials: Iterable[Trial]) -> list[str]:
    """The fewest keys, in the order of a flat trial, that tell trials apart which resolution, N and subset do not."""
    flats = [trial.flat() for trial in trials]
    chosen = list(ALWAYS_NAMED)
    for key in dict.fromkeys(key for flat in flats for key in flat):
        if _count(flats, [*chosen, key]) > _count(flats, chosen):
            chosen.append(key)
    return chosen[len(ALWAYS_NAMED) :]


def readable_name(trial: Trial, keys: Iterable[str]) -> str:
    """A name of resolution, N, subset and those of `keys` that the trial has: "20x20-N100-A", "16x16-N4-B-seed1".
    A switch stands in it by its own name where it is on: "80x80-N100-A-shuffled"."""
    flat = {**trial.flat(), "dataset": trial.dataset.name}
    rest = [_named(key, flat[key]) for key in keys if flat.get(key, False) is not False]
    return "-".join([f"{flat['resolution']}x{flat['resolution']}", f"N{flat['n_train']}", flat["subset"], *rest])


def _named(key: str, value: Any) -> str:
    return key if value is True else value if isinstance(value, str) else f"{key}{value}"


def _count(flats: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(repr(flat.get(key)) for key in keys) for flat in flats})


def _types(cls: type) -> dict[str, type]:
    """Keys that a class takes from a flat trial, with their types."""
    hidden = ("dataset", "architecture", "source", "path", "name")
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if f.name not in hidden}


def keys() -> dict[str, type]:
    """Every key that some trial takes, with its type."""
    known: dict[str, type] = {"dataset": str, "architecture": str}
    for cls in (Trial, Dataset, *SOURCES.values(), Files, *ARCHITECTURES.values()):
        known.update(_types(cls))
    return known


def _type_of(key: str) -> type:
    known = keys()
    return known[_known(key, known, "key")]


def _known(word: str, known: Iterable[str], what: str) -> str:
    if word not in known:
        raise UserError(f"unknown {what} {word!r}; {did_you_mean(word, known)}")
    return word


KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}


def _parse(key: str, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is int:
            number = float(text)
            if not number.is_integer():
                raise ValueError
            return int(text) if text.lstrip("-").isdigit() else int(number)
        if kind is float:
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        return text
    except (ValueError, KeyError, OverflowError):
        raise UserError(f"{key}={text}: must be {KINDS[kind]}") from None
