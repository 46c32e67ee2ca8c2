"""A trial: one denoiser trained on one subset of one data set.

A trial is written flat, as `key=value` on the command line, as MLflow params and in a card:

    dataset=c_alpha alpha=2 resolution=16 architecture=unet width=16 blocks=1 n_train=64 subset=A images=19200 …

`dataset` and `architecture` choose a class each, and the keys of those classes join the trial's own. The
**signature**, a hash of everything that changes the result, names the trial everywhere.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gahb.config_fields import KINDS, check_range, field_types, flatten, later
from gahb.data.dataset import Dataset
from gahb.data.sources import DATASETS, source_class
from gahb.data.splits import SUBSETS, Split
from gahb.errors import UserError, did_you_mean
from gahb.models.architectures import ARCHITECTURES, Architecture
from gahb.registry import KEYS, require

SIGNATURE_VERSION = 1
"""Part of every signature. Raise it when the code changes what a trial's result is."""

PRECISIONS = ("float32", "tf32", "bfloat16")
CHOICES = {
    "subset": SUBSETS,
    "schedule": ("halving", "cosine", "constant"),
    "precision": PRECISIONS,
    "optimizer": ("adam", "muon"),
    "noise_law": ("square", "lognormal", "log_uniform"),
    "weighting": ("uniform", "inverse_sigma"),
    "until": ("images", "settled"),
}
"""Keys and the words that they may be."""

WIDEST = 0.25
"""The largest relative length of an average of weights; that of all steps alike is 12^-½."""

MOST_EVALUATIONS = 100
"""In a doubling of the images seen."""

MOST = 10**12
"""Images that a trial may hold or see; a thousand times the paper's longest training."""


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
        learning_rate: the optimizer's, at the start.
        schedule: "halving" halves the rate after every tenth of the images (the paper's); "cosine" lowers it
            to 1 % along half a cosine; "constant" keeps it, so that no step depends on the training's length.
        precision: of the training. "float32"; "tf32", the same with the factors of products rounded to TF32, on GPUs
            that have it; "bfloat16", in which the activations are. Weights and optimizer are in float32.
        compile: run the step through torch.compile, which needs a C++ compiler and changes the rounding. The fastest
            are precision=bfloat16 compile=true.
        optimizer: "adam" (the paper's), or "muon", which makes the update of every kernel but the first and the last
            orthogonal (`gahb.training.muon`); good rates are ten times Adam's.
        beta2: Adam's β₂, for what Adam trains.
        warmup: the rate rises linearly over so many images.
        ema: what is evaluated and kept is an average of the weights over the last steps, of this length (a standard
            deviation) as a share of all steps until then, at most 0.25; 0 is the last weights themselves.
        noise_law: how σ is drawn. "square": u², u ~ U[0, 1] (the paper's); "lognormal": ln σ ~ N(-1.9, 1.2²), σ ≤ 1;
            "log_uniform": evenly over input PSNR from 0 to 42 dB.
        weighting: of an image's squared error in the loss. "uniform" (the paper's), or "inverse_sigma", by 1/σ, and
            100 below σ = 0.01.
        evaluations: how often PSNR is measured, in each doubling of the images seen.
        until: "images" trains to the end; "settled" ends at the first evaluation that differs by at most 0.1 dB, in
            test PSNR and gap, from each since a quarter as many images, and needs schedule=constant.

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
    optimizer: str = later("adam")
    beta2: float = later(0.999)
    warmup: int = later(0)
    ema: float = later(0.0)
    noise_law: str = later("square")
    weighting: str = later("uniform")
    evaluations: int = later(1)
    until: str = later("images")

    def __post_init__(self) -> None:
        if self.images == 0:
            object.__setattr__(self, "images", 10**9 if self.dataset.resolution <= 40 else 250_000_000)
        check_range(MOST, **{key: getattr(self, key) for key in ("n_train", "n_test", "images", "batch_size")})
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate={self.learning_rate}: must be a positive number")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must lie in 0 … 2³²-1")
        check_range(MOST_EVALUATIONS, evaluations=self.evaluations)
        for key, (least, most) in {"beta2": (0, 1), "ema": (0, WIDEST), "warmup": (0, MOST)}.items():
            if not least <= getattr(self, key) <= most or (key == "beta2" and self.beta2 == 1):
                raise UserError(f"{key}={getattr(self, key)}: must lie in {least} … {most}")
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise UserError(f"{key}={getattr(self, key)}: must be one of {', '.join(known)}")
        if self.until == "settled" and self.schedule != "constant":
            raise UserError(
                f"until=settled needs schedule=constant: under schedule={self.schedule} the end of a "
                "training is part of its beginning"
            )
        self.architecture.check(self.dataset.resolution)

    @property
    def steps(self) -> int:
        """Optimizer steps: the fewest that see `images` images."""
        return math.ceil(self.images / self.batch_size)

    @property
    def split(self) -> Split:
        """Its images among those of the data set."""
        return Split(self.subset, self.n_train, self.n_test)

    @property
    def plugins(self) -> list[dict[str, str]]:
        """A row for each guest that the trial uses: `group`, `name`, `origin`."""
        used = ((DATASETS, self.dataset.source.name), (ARCHITECTURES, self.architecture.name))
        return [
            {"group": group.name, "name": name, "origin": str(origin)}
            for group, name in used
            if (origin := group.guest(name))
        ]

    def flat(self) -> dict[str, Any]:
        """The trial as one level of keys and plain values; `Trial.of` is the inverse."""
        return dict(self._flat)

    @cached_property
    def _flat(self) -> dict[str, Any]:
        own = {key: value for key, value in flatten(self).items() if key not in ("dataset", "architecture")}
        return {**self.dataset.flat(), **self.architecture.flat(), **own}

    @classmethod
    def of(cls, flat: Mapping[str, Any] | None = None, plugins: Any = (), **keys: Any) -> "Trial":
        """The trial that the keys and values describe; keys left out take their defaults.

        Args:
            flat: as `flat` makes it.
            plugins: what a record says of the guests that it uses, as `plugins` makes it.
            keys: more keys, as arguments, with numbers of any type that mean the same (`typed`).

        Raises:
            UserError: an unknown key, a key of another data set or architecture, a value out of range, or a guest that
                is not here.

        Example:
            >>> trial = gahb.Trial.of(dataset="c_alpha", resolution=16, n_train=64, images=2e6)
            >>> trial.subset, trial.images, trial.architecture.name
            ('A', 2000000, 'unet')
        """
        require(plugins)
        flat = {**(flat or {}), **{key: typed(key, value) for key, value in keys.items()}}
        for key, value in flat.items():
            kind = type_of(key)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise UserError(f"{key}={value!r}: must be {KINDS[kind]}")
        for key in ("dataset", "resolution", "n_train"):
            if key not in flat:
                raise UserError(f"a trial needs {key}=…")
        dataset = dataset_of(flat)
        architecture = ARCHITECTURES.known(flat.pop("architecture", "unet"))
        own = {k: flat.pop(k) for k in field_types(cls) if k in flat}
        of_network = {k: flat.pop(k) for k in field_types(architecture) if k in flat}
        if flat:
            key = next(iter(flat))
            name = dataset.flat()["dataset"]
            raise UserError(f"{key}={flat[key]} does not apply to dataset={name} architecture={architecture.name}")
        colour = {"image_channels": dataset.image_channels} if dataset.image_channels > 1 else {}
        network = architecture.at(dataset.resolution, **of_network, **colour)
        return cls(dataset=dataset, architecture=network, **own)

    def signature(self, data_hash: str) -> str:
        """Twelve hexadecimal digits that name this trial, given the hash that names its data set.

        A data set's path is not part of it: the same images elsewhere are the same trial. The version of a guest's
        architecture is, and that of a guest's data set through the hash.
        """
        return self._hash(data_hash)

    def course(self, data_hash: str) -> str | None:
        """The same of everything but its length, for a trial whose steps do not depend on that; None for others."""
        return self._hash(data_hash, "images") if self.schedule == "constant" else None

    def _hash(self, data_hash: str, *ignored: str) -> str:
        without = {*self.dataset.flat(), *ignored}
        content: list[Any] = [SIGNATURE_VERSION, data_hash, {k: v for k, v in self._flat.items() if k not in without}]
        if guest := ARCHITECTURES.guest(self.architecture.name):
            content.append({"architecture": str(guest)})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


KEYS.claim("trial", "", {"dataset": str, "architecture": str, **field_types(Dataset), **field_types(Trial)})


def dataset_of(flat: dict[str, Any]) -> Dataset:
    """The data set that a flat trial describes. Its keys are taken out of `flat`.

    Raises:
        UserError: a value out of range.
    """
    name = flat.pop("dataset")
    source = source_class(name)
    options = {k: flat.pop(k) for k in field_types(source) if k in flat}
    return Dataset(source.of(name, **options), **{k: flat.pop(k) for k in field_types(Dataset) if k in flat})


def type_of(key: str) -> type:
    """The type of a key of trials; UserError if there is no such key."""
    types = KEYS.types()
    if key not in types:
        raise UserError(f"unknown key {key!r}; {did_you_mean(key, types)}")
    return types[key]


def typed(key: str, value: Any) -> Any:
    """A value in the type of its key, where it means the same there: numpy's numbers, 2e6 for 2000000, 2 for 2.0. Any
    other stays, to be refused. UserError if there is no such key."""
    kind, value = type_of(key), value.item() if hasattr(value, "item") else value
    whole = isinstance(value, float) and value.is_integer()
    return kind(value) if (kind is int and whole) or (kind is float and type(value) is int) else value
