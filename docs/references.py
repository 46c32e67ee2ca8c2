"""`python -m docs.references` writes the table of docs/references.md: what α/(α+1) becomes at sides of so many
pixels."""

from pathlib import Path

import torch
from gahb_analysis.curves import WEAK_NOISE, reference
from gahb_analysis.theory import terms_window

from gahb.data.c_alpha import CAlpha
from gahb.data.dataset import Dataset
from gahb.data.intensity import unit
from gahb.denoising.approximation import bandlet_errors, exponent

PAGE = Path(__file__).parent / "references.md"
BEGIN, END = "<!-- written by python -m docs.references -->", "<!-- end -->"

ALPHAS, SIDES = (1.0, 2.0, 3.0, 5.0), (20, 40, 80)

IMAGES = 8
"""Over which the error after M terms is averaged."""


def table() -> str:
    """A row for each α: the slope of the reference and the exponent of its error after M terms at each of SIDES."""
    slopes, exponents = (", ".join(f"{side}×{side}" for side in SIDES),) * 2
    lines = [f"| α | α/(α+1) | slope at {slopes} | exponent of ‖x − x_M‖² at {exponents} |", "|---|---|---|---|"]
    for alpha in ALPHAS:
        sets = [Dataset(CAlpha(alpha), side) for side in SIDES]
        found = ", ".join(f"{reference(each, WEAK_NOISE)['reference_slope']:.2f}" for each in sets)
        lines.append(f"| {alpha:g} | {alpha / (alpha + 1):.2f} | {found} | {', '.join(map(error_exponent, sets))} |")
    return "\n".join(lines)


def error_exponent(dataset: Dataset) -> str:
    """That of the best bandlet bases, from d/160 to d/10 terms."""
    assert isinstance(dataset.source, CAlpha)
    images = unit(torch.from_numpy(dataset.source.chunk(dataset.resolution, 0)[:IMAGES]))[:, None]
    errors = bandlet_errors(images).mean(dim=0)
    return f"{exponent(range(1, len(errors) + 1), errors, terms_window(len(errors))):.2f}"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")
