"""What the MLflow UI shows of a run beside its numbers: a description in Markdown, and its colour in charts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gahb.text import in_markdown
from gahb.tracking.run import Run
from gahb.tracking.views import NOTE, run_link

COLOUR = "mlflow.runColor"
COLOURS = ["#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26"]
"""From dark to light (viridis), one for each half of a decade of N."""

PICTURES = ("psnr_curve.png", "denoised.png")
"""What the description of a finished trial shows of its artifacts."""


def of_new_trial(flat: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a trial that is to be trained."""
    half_decades = round(2 * math.log10(flat["n_train"]))
    return {NOTE: _in_words(flat), COLOUR: COLOURS[min(half_decades, len(COLOURS) - 1)]}


def of_finished_trial(flat: Mapping[str, Any], run_id: str) -> dict[str, str]:
    """The tag of a trial that has been trained."""
    return {NOTE: f"{_in_words(flat)}\n\n{_shown(run_id)}"}


def of_asked(run: Run) -> dict[str, str]:
    """The tag of a finished run that leads on to the analyses of it."""
    links = [f"[{in_markdown(kind)}]({run_link(*where)})" for kind, where in sorted(run.analyses.items())]
    about = ["a published checkpoint"] if run.imported else [_in_words(run.flat), _shown(run.run_id)]
    return {NOTE: "\n\n".join([about[0], f"Analyses: {', '.join(links)}", *about[1:]])}


def of_analysis(kind: str, runs: Sequence[Run]) -> dict[str, str]:
    """The tag of an analysis that leads back to what it was computed from."""
    links = "\n".join(f"- [{in_markdown(run.name)}]({run_link(run.experiment_id, run.run_id)})" for run in runs)
    return {NOTE: f"{in_markdown(kind)} of\n\n{links}"}


def _shown(run_id: str) -> str:
    """Markdown that shows PICTURES."""
    return " ".join(f"![{name}](get-artifact?path={name}&run_uuid={run_id})" for name in PICTURES)


def _in_words(flat: Mapping[str, Any]) -> str:
    words = "{architecture} trained on {n_train:,} images of {dataset}, {resolution}×{resolution}, subset {subset}"
    return in_markdown(words.format(**flat))
