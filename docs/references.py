"""`python -m docs.references` writes the tables of docs/references.md: what α/(α+1) becomes at sides of so many
pixels, and how the error after M terms falls with backgrounds of the same regularity and of one derivative more."""

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

BETWEEN = "From 100 to 1000 terms at 80×80 the error after M terms falls with these exponents:"

ALPHAS, SIDES = (1.0, 2.0, 3.0, 5.0), (20, 40, 80)

IMAGES = 8
"""Over which the error after M terms is averaged."""

MANY = (100.0, 1000.0)
"""Terms of the second table."""


def table() -> str:
    """A row for each α: the slope of the reference and the exponent of its error after M terms at each of SIDES."""
    slopes, exponents = (", ".join(f"{side}×{side}" for side in SIDES),) * 2
    lines = [f"| α | α/(α+1) | slope at {slopes} | exponent of ‖x − x_M‖² at {exponents} |", "|---|---|---|---|"]
    for alpha in ALPHAS:
        sets = [Dataset(CAlpha(alpha), side) for side in SIDES]
        found = ", ".join(f"{reference(each, WEAK_NOISE)['reference_slope']:.2f}" for each in sets)
        lines.append(f"| {alpha:g} | {alpha / (alpha + 1):.2f} | {found} | {', '.join(map(error_exponent, sets))} |")
    return "\n".join(lines)


def many_terms() -> str:
    """The exponents over MANY terms at the largest side, a row for each α but the largest."""
    lines = ["| α | backgrounds of α | of α + 1 |", "|---|---|---|"]
    for alpha in ALPHAS[:-1]:
        sets = [Dataset(CAlpha(alpha, background), SIDES[-1]) for background in (alpha, alpha + 1)]
        lines.append(f"| {alpha:g} | {' | '.join(error_exponent(each, MANY) for each in sets)} |")
    return "\n".join(lines)


def error_exponent(dataset: Dataset, window: tuple[float, float] | None = None) -> str:
    """That of the best bandlet bases, from d/160 to d/10 terms if no window is given."""
    assert isinstance(dataset.source, CAlpha)
    images = unit(torch.from_numpy(dataset.source.chunk(dataset.resolution, 0)[:IMAGES]))[:, None]
    errors = bandlet_errors(images).mean(dim=0)
    return f"{exponent(range(1, len(errors) + 1), errors, window or terms_window(len(errors))):.2f}"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{BETWEEN}\n\n{many_terms()}\n\n{END}{rest.partition(END)[2]}")
