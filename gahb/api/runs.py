"""A run of the record from Python: `gahb.load_run`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gahb.api import notebook
from gahb.api.place import Place
from gahb.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from gahb.tracking.run import Run


@dataclass(frozen=True)
class TrialRun:
    """A trial, or an imported model, as the record has it. It can be given to every function that takes a run's name.

    Args:
        run: what the record has of it.
        state: "finished", "running" (or waiting for a worker of a launch that is alive), "interrupted", "failed" …
        place: where it was found.
    """

    run: "Run"
    state: str
    place: Place

    @property
    def name(self) -> str:
        """Of the run, such as "16x16-N64-A"."""
        return self.run.name

    @property
    def shown_state(self) -> str:
        """The state, but "scheduled" until a worker has begun the trial."""
        from gahb.planning.plan import shown_state

        return shown_state(self.run, self.state)

    @property
    def run_id(self) -> str:
        """MLflow's."""
        return self.run.run_id

    @property
    def metrics(self) -> dict[str, float]:
        """The last `train_psnr`, `test_psnr`, `psnr_gap` and `psnr_gap_db`, in dB, as far as they are there."""
        return self.run.psnrs

    @cached_property
    def trial(self) -> Trial:
        """What was trained; UserError for an imported model."""
        return self.run.trial

    @cached_property
    def df(self) -> "pd.DataFrame":
        """A row an evaluation, with `images_seen`, and `train_psnr`, `test_psnr`, `psnr_gap`, `psnr_gap_db` in dB."""
        from gahb.tracking.evaluations import evaluations_of

        return evaluations_of(self.place.record, self.run)

    @property
    def reason(self) -> str | None:
        """Why it is not finished, if that is known."""
        return self.run.reason

    def row(self, keys: Iterable[str]) -> dict[str, Any]:
        """The trial in a table of trials that differ in these keys. What tells most is at both ends, where pandas shows
        it however narrow a terminal is."""
        from gahb.tracking.run import PSNRS

        flat = self.run.flat
        return {
            "name": self.name,
            "state": self.state,
            "n_train": flat["n_train"],
            **{key: flat.get(key) for key in keys},
            "images_seen": self.run.images_seen,
            "images": flat["images"],
            "reason": self.reason,
            "run_id": self.run_id,
            **{key: self.metrics.get(key, math.nan) for key in ("psnr_gap_db", *PSNRS)},
        }

    def __repr__(self) -> str:
        numbers = ", ".join(f"{key} {value:.2f} dB" for key, value in self.metrics.items())
        return f"{self.name} ({self.run_id[:8]}) {self.shown_state}" + (f": {numbers}" if numbers else "")

    def _repr_html_(self) -> str:
        return notebook.page(notebook.heading(repr(self)), notebook.table(self.df))


def load_run(run: str, *, record: str | None = None, storage: str | None = None) -> TrialRun:
    """A trial or an imported model as the record has it now.

    Args:
        run: an MLflow run id, a unique prefix of one or of a signature, or a run's name.
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.
        storage: `GAHB_STORAGE` or ./gahb-storage if left out.

    Raises:
        UserError: no such run, or several.

    Example:
        >>> run = gahb.load_run("16x16-N64-A")
        >>> run.state, run.trial.n_train, list(run.df.columns)
        ('finished', 64, ['images_seen', 'train_psnr', 'test_psnr', 'psnr_gap', 'psnr_gap_db'])
    """
    from gahb.planning.plan import states_of
    from gahb.tracking import lookup

    place = Place.at(record, storage)
    found = lookup.find(place.record, run)
    return TrialRun(found, states_of([found], place.storage)[found.run_id], place)
