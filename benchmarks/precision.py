"""Do the fast settings leave the science where it was? Small trials in float32, TF32, bfloat16 and bfloat16 compiled.

C^α images of α = 2 at 16×16, N = 256, subsets A and B, a UNet of width 16, 600 steps: PSNR gap and test PSNR in dB, and
the similarity of what A and B draw from the same noise (cosine of the images without their means, and its excess over
that from different noise), as mean ± standard deviation over three seeds. About three minutes on one core that has
bfloat16. In TF32 nothing is trained on a CPU, which has none and takes float32 instead.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from benchmarks.harness import Row, main
from gahb.data import intensity
from gahb.data.dataset import prepare
from gahb.data.similarity import cosine, mismatched_cosine
from gahb.data.splits import SUBSETS
from gahb.denoising.sampling import sample
from gahb.storage.local import Folder
from gahb.training import loop
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial

ON_GPU = torch.cuda.is_available()
SEEDS = (0, 1, 2)
SETTINGS: dict[str, dict[str, object]] = {
    "float32": {},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16 + compile": {"precision": "bfloat16", "compile": True},
}
SMALL = {
    "dataset": "c_alpha", "resolution": 16, "width": 16, "n_train": 256, "n_test": 128, "images": 600 * 32,
    "batch_size": 32, "learning_rate": 2e-3, "schedule": "cosine",
}  # fmt: skip
SAMPLES = 64


@dataclass(frozen=True)
class Result:
    """A pair of trials: PSNR gap and test PSNR, averaged over both, and the similarity of their samples."""

    psnr_gap: float
    test_psnr: float
    cosine: float
    excess: float


def result(flat: dict[str, object], storage: Folder) -> Result:
    device = torch.device("cuda" if ON_GPU else "cpu")
    curves: list[dict[str, float]] = []
    drawn = []
    for subset in SUBSETS:
        trial = Trial.of({**flat, "subset": subset})
        prepared = prepare(trial.dataset, storage, trial.split.needed)
        train, test = trial.split.training_images(prepared), trial.split.held_out_images(prepared)
        folder = f"trials/{trial.signature(trial.dataset.hash(storage))}"
        trained = loop.train(loop.Training(trial, train, test, device), Checkpoints(storage, folder))
        curves.append(trained.history[-1].curve.summary())
        mean = intensity.mean(test)
        drawn.append(sample(trained.denoiser, SAMPLES, train.shape[1:], mean=mean, device=device))
    both = drawn[0].converged & drawn[1].converged
    a, b = (samples.images[both] for samples in drawn)
    matched = cosine(a, b, centred=True)
    return Result(
        psnr_gap=sum(curve["psnr_gap"] for curve in curves) / 2,
        test_psnr=sum(curve["test_psnr"] for curve in curves) / 2,
        cosine=float(matched.mean()),
        excess=float((matched - mismatched_cosine(a, b, centred=True)).mean()),
    )


def rows() -> list[Row]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: pd.DataFrame(
                [vars(result({**SMALL, **setting, "seed": seed}, Folder(Path(folder)))) for seed in SEEDS]
            )
            for name, setting in SETTINGS.items()
            if ON_GPU or name != "tf32"
        }
    plain = found.pop("float32")
    found = {name: found.get(name, plain) for name in SETTINGS if name != "float32"}
    return [
        _row(str(measure), name, plain[measure], values[measure]) for name, values in found.items() for measure in plain
    ]


def _row(measure: str, setting: str, plain: pd.Series, values: pd.Series) -> Row:
    away = abs(values.mean() - plain.mean()) / plain.std()
    same = "; a CPU takes float32, to the same bits" if setting == "tf32" and not ON_GPU else ""
    return Row(
        f"{measure}, {setting}: distance from float32 in standard deviations over seeds",
        f"{plain.mean():.3f} ± {plain.std():.3f} in float32",
        away,
        "≤ 1",
        bool(away <= 1),
        f"{values.mean():.3f} ± {values.std():.3f}{same}",
    )


if __name__ == "__main__":
    main(rows, __doc__ or "")
