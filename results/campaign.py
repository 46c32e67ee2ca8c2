"""The parts of the campaign: the commands that train, those that ask, and what is kept of the answers."""

from dataclasses import dataclass

FAST = "batch_size=32 optimizer=muon learning_rate=0.032 schedule=constant ema=0.05 evaluations=2"
"""The recipe whose every evaluation is an end (docs/training.md)."""

FACES, ROOMS = "dataset=$FACES", "dataset=$ROOMS"
"""The files that the environment names: CelebA's faces at 40×40, indoor scenes at 80×80."""


@dataclass(frozen=True)
class Kept:
    """An analysis whose answer is kept.

    Args:
        sweep: whose experiment has it.
        kind: the analysis, as the command names it.
        tables: file stems of its tables.
        pictures: file stems of its pictures; of photographs' models none that shows samples or images.
        about: a part of its name, where the sweep has several of the kind.
    """

    sweep: str
    kind: str
    tables: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    about: str = ""

    @property
    def folder(self) -> str:
        """Where its files stand in docs/results."""
        return f"{self.sweep}/{self.about or self.kind}"


@dataclass(frozen=True)
class Part:
    """A question of the campaign.

    Args:
        title: its heading.
        commands: in the order in which they are typed.
        kept: the answers that are kept.
        sweeps: whose trials count as its cost.
    """

    title: str
    commands: tuple[str, ...]
    kept: tuple[Kept, ...]
    sweeps: tuple[str, ...]


def launch(sweep: str, settings: str, name: str) -> str:
    return f"gahb-sweep launch {sweep} {settings} --as {name}"


AT_20 = f"resolution=20 width=32 n_train=10,30,100,300,1000,3000 {FAST}"
FEWER = FAST.replace("evaluations=2", "evaluations=1")
"""Measured at every doubling, where measuring costs as much as training."""

QUICK = f"{FEWER} precision=bfloat16 compile=true"
LONGER = f"resolution=20 width=32 {FAST} seed=1"
NETWORKS = f"resolution=20 n_train=10,30,100,300 images=32768 {QUICK}"
ADAM = FEWER.replace("optimizer=muon learning_rate=0.032", "learning_rate=0.001")
TRANSFORMER = f"resolution=20 n_train=10,30 images=32768 architecture=transformer depth=4 patch=2 width=32 {ADAM}"
"""At Muon's rate for UNets it diverges."""

ALONE = f"resolution=40 blocks=2 width=32 n_train=10000 images=32768 {FEWER} precision=float32"
ALPHAS = ("alpha1.0", "alpha2.0", "alpha3.0", "alpha5.0")
KINDS = f"resolution=20 width=32 n_train=3000 images=65536 {FAST}"

PARTS = {
    "phase": Part(
        "Where the transition lies, and when",
        (
            launch("transition", f"{FACES} {AT_20} seed=0,1 images=65536", "faces"),
            "gahb-analyze phase faces --samples 0 --predict 131072",
            launch("transition", f"{FACES} {AT_20} seed=0,1 images=131072", "faces"),
            "gahb-analyze phase faces --samples 0 --predict 1e9",
            "gahb-analyze phase faces --predict 1048576",
            "gahb-analyze scaling faces",
            "gahb-analyze phase faces --samples 0 --predict 524288",
            launch(
                "transition", f"{FACES} resolution=20 width=32 n_train=100,300 {FAST} seed=0 images=524288", "faces"
            ),
            "gahb-analyze phase faces --samples 0",
        ),
        (
            Kept(
                "faces", "phase", ("n_star", "laws", "parameters", "outcomes", "predictions", "exponents"), ("phase",)
            ),
            Kept("faces", "scaling", ("scaling", "crossings"), ("scaling",)),
        ),
        ("faces",),
    ),
    "longer": Part(
        "A million images",
        (
            launch("transition", f"{FACES} n_train=10 {LONGER} images=16384", "faces-long"),
            launch("transition", f"{FACES} n_train=30,100,300 {LONGER} images=131072", "faces-long"),
            "gahb-analyze phase faces-long --samples 0 --predict 1048576 --predict 1e9",
            launch("transition", f"{FACES} n_train=100,300 {LONGER} images=1048576", "faces-long"),
            "gahb-analyze phase faces-long --samples 0 --predict 2097152 --predict 1e9",
            "gahb-analyze phase faces-long --samples 0",
        ),
        (Kept("faces-long", "phase", ("n_star", "laws", "parameters", "outcomes"), ("phase",)),),
        ("faces-long",),
    ),
    "paper-recipe": Part(
        "The paper's recipe",
        (
            launch(
                "transition",
                f"{FACES} resolution=20 width=32 n_train=10,30,100 images=131072 batch_size=32",
                "faces-paper",
            ),
            "gahb-analyze phase faces-paper --samples 0",
        ),
        (Kept("faces-paper", "phase", ("n_star", "cells")),),
        ("faces-paper",),
    ),
    "size": Part(
        "Larger images",
        (
            launch(
                "transition",
                f"{FACES} resolution=40 blocks=2 width=32 n_train=50,200 n_test=256 images=32768 {QUICK}",
                "faces-40",
            ),
            "gahb-analyze phase faces-40 --samples 0",
            launch(
                "resolution_scaling",
                f"drawn_at=40 resolution=20,40 width=32 n_train=30,100 n_test=256 images=32768 {QUICK}",
                "c-alpha-sizes",
            ),
            launch(
                "resolution_scaling",
                f"drawn_at=40 resolution=20 blocks=2 width=32 n_train=30,100,300 n_test=256 images=16384 {FEWER}",
                "c-alpha-deep",
            ),
            *(f"gahb-analyze phase {name} --samples 0" for name in ("c-alpha-sizes", "c-alpha-deep")),
        ),
        (
            *(Kept(name, "phase", ("n_star",), ("phase",)) for name in ("faces-40", "c-alpha-sizes")),
            *(Kept(name, "phase", ("n_star",)) for name in ("c-alpha-deep", "blocks")),
        ),
        ("faces-40", "c-alpha-sizes", "c-alpha-deep"),
    ),
    "kind": Part(
        "Kinds of image",
        (
            launch("transition", f"{ROOMS} {AT_20} images=65536", "rooms"),
            launch("transition", f"{AT_20} images=65536", "c-alpha"),
            *(f"gahb-analyze pairs {name}" for name in ("faces", "rooms", "c-alpha")),
            *(f"gahb-analyze phase {name} --samples 0" for name in ("rooms", "c-alpha")),
        ),
        (
            *(Kept(name, "pairs", ("pairs", "n_overtake")) for name in ("faces", "rooms")),
            Kept("c-alpha", "pairs", ("pairs", "n_overtake"), ("pairs",)),
            *(Kept(name, "phase", ("n_star",), ("phase",)) for name in ("rooms", "c-alpha")),
        ),
        ("rooms", "c-alpha"),
    ),
    "architecture": Part(
        "Networks",
        (
            launch("transition", f"{FACES} {NETWORKS} width=16,64", "widths"),
            launch("transition", f"{FACES} {NETWORKS} width=16,32 blocks=2", "blocks"),
            launch("transition", f"{FACES} {NETWORKS} architecture=bf_cnn layers=7,11 width=32", "bf-cnn"),
            launch("transition", f"{FACES} {TRANSFORMER}", "transformer"),
            "gahb-analyze phase widths --samples 0 --predict 1e9",
            *(f"gahb-analyze phase {name} --samples 0" for name in ("blocks", "bf-cnn", "transformer")),
        ),
        (
            Kept("widths", "phase", ("n_star", "laws", "parameters", "predictions")),
            *(Kept(name, "phase", ("n_star",)) for name in ("blocks", "bf-cnn", "transformer")),
        ),
        ("widths", "blocks", "bf-cnn", "transformer"),
    ),
    "slopes": Part(
        "Slopes on C^α images",
        (
            launch("c_alpha_slopes", f"architecture=unet alpha=1,2,3,5 {ALONE} weighting=inverse_sigma", "slopes"),
            "gahb-analyze curves slopes --fit 20 34",
            *(f"gahb-analyze theory slopes/40x40-N10000-A-{alpha} --fit 20 34" for alpha in ALPHAS),
        ),
        (
            Kept("slopes", "curves", ("slopes",), ("curves",)),
            *(Kept("slopes", "theory", ("summary", "exponents"), about=alpha) for alpha in ALPHAS),
        ),
        ("slopes",),
    ),
    "manifolds": Part(
        "Disks, sine waves, a ray",
        (
            launch("disks", ALONE, "disks-40"),
            launch("sinusoids", f"architecture=unet {ALONE}", "sinusoids-40"),
            launch("single_image_ray", f"architecture=unet {ALONE}", "ray-40"),
            *(
                f"gahb-analyze basis {name}/40x40-N10000-A --sigma {sigma} --vectors 0:{last}"
                for name, sigma, last in (("disks-40", 0.04, 9), ("sinusoids-40", 0.08, 9), ("ray-40", 0.04, 4))
            ),
            *(
                command
                for name in ("disks-40", "sinusoids-40", "ray-40")
                for command in (
                    f"gahb-analyze dimension {name}/40x40-N10000-A --images 8",
                    f"gahb-analyze curves {name}",
                )
            ),
        ),
        tuple(
            Kept(name, kind, tables, (kind,))
            for name in ("disks-40", "sinusoids-40", "ray-40")
            for kind, tables in (("basis", ("basis", "angles")), ("dimension", ("summary",)), ("curves", ("slopes",)))
        ),
        ("disks-40", "sinusoids-40", "ray-40"),
    ),
    "transfer": Part(
        "One kind of image, another's denoiser",
        (
            launch("shuffled_faces", f"{FACES} {KINDS}", "kind-faces"),
            launch("transition", f"{ROOMS} {KINDS} subset=A", "kind-rooms"),
            launch("transition", f"alpha=1,2,3 {KINDS} subset=A", "kind-c-alpha"),
            launch("disks", KINDS, "kind-disks"),
            "gahb-analyze transfer kind-faces kind-rooms kind-c-alpha kind-disks",
            "gahb-analyze report kind-faces",
        ),
        (
            Kept("kind-faces", "transfer", ("transfer",)),
            Kept("kind-faces", "basis", ("basis",)),
            Kept("kind-faces", "curves", ("slopes",)),
        ),
        ("kind-faces", "kind-rooms", "kind-c-alpha", "kind-disks"),
    ),
    "memory": Part(
        "Memory in the course of training",
        (
            launch("transition", f"{FACES} resolution=20 width=32 n_train=2,4,8,16 images=65536 {FAST}", "memory"),
            launch("transition", f"{FACES} resolution=20 width=32 n_train=2,4 images=262144 {FAST}", "memory"),
            "gahb-analyze phase memory",
        ),
        (Kept("memory", "phase", ("times", "exponents"), ("phase",)),),
        ("memory",),
    ),
}
