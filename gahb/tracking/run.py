"""A run of the record: a trial, a model from elsewhere, a calibration or an analysis.

A trial is one run, flat in its sweep's experiment: params are the flat trial, metrics have images seen as their step,
tags say what the run is. An analysis is a run in the experiment `<sweep>-analysis`, tagged with the runs that it was
computed from.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gahb.errors import UserError

if TYPE_CHECKING:
    from gahb.trial import Trial

PREFIX = "gahb."
"""What every tag of ours begins with."""


class Tag(StrEnum):
    """The tags of runs."""

    KIND = "gahb.kind"
    """A `Kind`, or the name of an analysis."""
    SIGNATURE = "gahb.signature"
    """What names the trial, or the imported model."""
    TRIAL = "gahb.trial"
    """The flat trial as JSON."""
    PLUGINS = "gahb.plugins"
    """The guests that the trial uses as JSON, in the form of `Trial.plugins`."""
    COURSE = "gahb.course"
    """What trials that differ in their length alone have in common, if no step depends on it (`Trial.course`)."""
    IMAGES_REUSED = "gahb.images_reused"
    """Images that another trial of the course had seen, from whose checkpoint it went on."""
    DATA_HASH = "gahb.data_hash"
    """The data set."""
    SUBSET = "gahb.subset"
    """A or B."""
    SUBSET_HASH = "gahb.subset_hash"
    """The training images."""
    LAUNCH = "gahb.launch"
    """The launch that holds, or held, the trial's lease."""
    ATTEMPT = "gahb.attempt"
    """The worker that may write, host/pid/nonce; one that finds another's mark stops."""
    STARTS = "gahb.starts"
    """step:count, how often workers have started from the checkpoint at that step."""
    PROGRESS = "gahb.progress"
    """images seen:images a second, how far the trial's worker has got since the last evaluation."""
    STOP = "gahb.stop"
    """"true" when the trial shall stop."""
    REASON = "gahb.reason"
    """Why it failed or stopped, or what went wrong last."""
    PLANNED_SECONDS = "gahb.planned_seconds"
    """Device time that was planned for the training."""
    DEVICE = "gahb.device"
    """What trained it, or was calibrated."""
    SHARE = "gahb.share"
    """How many cores, or how much of a GPU, it was granted."""
    PICTURES = "gahb.pictures"
    """The names of an analysis's pictures, with spaces between them."""
    RATES = "gahb.rates"
    """What a calibration measured, as JSON."""


class Kind(StrEnum):
    """What a run is, if it is no analysis."""

    TRIAL = "trial"
    IMPORT = "import"
    CALIBRATION = "calibration"


SWEEP, LAUNCHED, LINK, ASKED = f"{PREFIX}sweep.", f"{PREFIX}launched.", f"{PREFIX}of.", f"{PREFIX}asked."

SWEEP_NAME = re.compile(r"(?!.*\.\.)[\w-][\w\-./: ]{0,199}")
"""The name of a sweep: what MLflow takes for a tag, and no way out of a folder."""

STATES = {
    "SCHEDULED": "scheduled",
    "RUNNING": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
}
"""MLflow's run status → the trial's state."""

PSNRS = ("train_psnr", "test_psnr", "psnr_gap")
"""The metrics in dB that every finished trial has."""

METRICS = (*PSNRS, "psnr_gap_db")
"""The metrics that say how a trial stands, in dB. Older records lack the last."""


N, BY_N = "n", "by_n/"
"""Metrics that the MLflow UI alone reads: N, as params are sorted as text; and what such metrics begin with as stand
against N, their step."""


def member_of(sweep: str, launched: str | None = None) -> dict[str, str]:
    """The tag of a sweep's member; a trial may have several such. Beside it, where it is known, stands which sweep was
    launched under that name, as `gahb-sweep list` names it."""
    return {f"{SWEEP}{sweep}": "true", **({f"{LAUNCHED}{sweep}": launched} if launched else {})}


def analyses_of(sweep: str) -> str:
    """The experiment with the analyses of a sweep."""
    return f"{sweep}-analysis"


def link(number: int) -> str:
    """The tag that holds the id of the first, second, … run that an analysis was computed from."""
    return f"{LINK}{number}"


def asked(kind: str, experiment_id: str, run_id: str) -> dict[str, str]:
    """The tag of a run that leads back to the newest analysis of a kind that was computed from it."""
    return {f"{ASKED}{kind}": f"{experiment_id}/{run_id}"}


@dataclass(frozen=True)
class Run:
    """A run as the record has it, of the form that `parsing.check` demands. `artifact_uri` is where its artifacts are
    said to be."""

    run_id: str
    experiment_id: str
    name: str
    state: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    artifact_uri: str

    @property
    def kind(self) -> str:
        """A `Kind`, or the name of an analysis."""
        return self.tags.get(Tag.KIND, "")

    @property
    def signature(self) -> str:
        return self.tags.get(Tag.SIGNATURE, "")

    @property
    def flat(self) -> dict[str, Any]:
        """The flat trial."""
        flat: dict[str, Any] = json.loads(self.tags[Tag.TRIAL])
        return flat

    @property
    def trial(self) -> "Trial":
        """The trial; UserError if it uses a guest that is not here, or cannot be trained."""
        from gahb.trial import Trial  # slow to import, and a table of runs needs none

        try:
            return Trial.of(self.flat, json.loads(self.tags.get(Tag.PLUGINS, "[]")))
        except UserError as error:
            raise UserError(f"trial {self.name} ({self.run_id[:8]}): {error}") from None

    @property
    def imported(self) -> bool:
        """Whether the model was trained elsewhere."""
        return self.kind == Kind.IMPORT

    @property
    def unfinished(self) -> bool:
        """Whether a launch has scheduled the run and it has not come to an end."""
        return self.state in ("scheduled", "running")

    @property
    def sweeps(self) -> list[str]:
        """The sweeps that it belongs to, sorted."""
        names = (tag.removeprefix(SWEEP) for tag in self.tags if tag.startswith(SWEEP))
        return sorted(filter(SWEEP_NAME.fullmatch, names))

    def launched(self, sweep: str) -> str:
        """Which sweep was launched under that name, as `gahb-sweep list` names it. A record that does not say has the
        sweep under its own name, or that of its small variant."""
        return self.tags.get(f"{LAUNCHED}{sweep}") or sweep.removesuffix("-small")

    @property
    def links(self) -> frozenset[str]:
        """The ids of the runs that an analysis was computed from."""
        return frozenset(run_id for tag, run_id in self.tags.items() if tag.startswith(LINK))

    @property
    def analyses(self) -> dict[str, tuple[str, str]]:
        """Kind of analysis → the ids of the experiment and the run of the newest that was computed from it."""
        found = {tag.removeprefix(ASKED): value.split("/") for tag, value in self.tags.items() if tag.startswith(ASKED)}
        return {kind: (experiment_id, run_id) for kind, (experiment_id, run_id) in found.items()}

    @property
    def pictures(self) -> list[str]:
        """The names of an analysis's pictures."""
        return self.tags.get(Tag.PICTURES, "").split()

    @property
    def psnrs(self) -> dict[str, float]:
        """The last of its METRICS, in dB."""
        return {key: self.metrics[key] for key in METRICS if key in self.metrics}

    @property
    def images_seen(self) -> int:
        """As its last evaluation says, or its last worker since."""
        return max(int(self.metrics.get("images_seen", 0)), int(self._progress[0] or 0))

    @property
    def images_per_second(self) -> float:
        """The speed at which it trains; 0 if it does not, or if that is not known."""
        return float(self._progress[1] or 0) if self.state == "running" else 0

    @property
    def _progress(self) -> tuple[str, str]:
        seen, _, speed = self.tags.get(Tag.PROGRESS, "").partition(":")
        return seen, speed

    @property
    def images_reused(self) -> int:
        """How many images another trial of its course had seen, from whose checkpoint it went on."""
        return int(self.tags.get(Tag.IMAGES_REUSED, 0))

    @property
    def reason(self) -> str | None:
        """Why it is not finished, if that is known."""
        return None if self.state == "finished" else self.tags.get(Tag.REASON) or None
