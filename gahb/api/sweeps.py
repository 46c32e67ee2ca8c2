"""Training from Python, and what the record has of it: `gahb.grid`, `gahb.launch`, `gahb.load_sweep`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gahb import grids
from gahb.api import notebook
from gahb.api.place import Place, check_address
from gahb.api.runs import TrialRun
from gahb.cli import say
from gahb.errors import UserError, did_you_mean
from gahb.planning.plan import counted
from gahb.planning.sweeps import Chosen, choose
from gahb.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from gahb.execution.launch import LaunchOptions


@dataclass(frozen=True)
class Sweep:
    """Trials of the record that were launched under one name, as they stood when this was made.

    It can be given to every function that takes a sweep's name, which then looks where this one was found.

    Args:
        name: of the sweep.
        runs: its trials.
        rows: a row a trial, as `gahb-sweep launch --json` and `gahb-sweep status --json` print them.
        place: where it was found.
    """

    name: str
    runs: Sequence[TrialRun]
    rows: Sequence[dict[str, Any]]
    place: Place

    @cached_property
    def df(self) -> "pd.DataFrame":
        """A row a trial, with `name`, `state`, the keys in which the trials differ, `images_seen` of its `images`,
        `reason`, `run_id`, and the last `psnr_gap_db`, `train_psnr`, `test_psnr` and `psnr_gap` in dB."""
        import pandas as pd

        varying = grids.differing(run.trial for run in self.runs)
        keys = (*grids.ALWAYS_NAMED, *(key for key in varying if key not in grids.ALWAYS_NAMED))
        return pd.DataFrame([run.row(keys) for run in self.runs])

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[TrialRun]:
        return iter(self.runs)

    def __getitem__(self, name: str) -> TrialRun:
        """The trial of that name; UserError if there is none."""
        for run in self.runs:
            if run.name == name:
                return run
        raise UserError(f"no trial {name!r} in the sweep {self.name!r}; {did_you_mean(name, (r.name for r in self))}")

    def __repr__(self) -> str:
        return f"sweep {self.name}: {counted(run.shown_state for run in self.runs)}"

    def _repr_html_(self) -> str:
        hidden = ["run_id", "images", *(["reason"] if self.df["reason"].isna().all() else [])]
        return notebook.page(notebook.heading(repr(self)), notebook.table(self.df.drop(columns=hidden)))


def grid(**axes: Any) -> list[Trial]:
    """All combinations of settings, as trials; the last one varies fastest.

    Args:
        axes: key → a value, or several; every key is in docs/settings.md. `dataset`, `resolution` and `n_train` must
            be there.

    Raises:
        UserError: an unknown key, a value that is refused, or too many trials.

    Example:
        >>> [f"N = {trial.n_train}, {trial.subset}" for trial in
        ...  gahb.grid(dataset="c_alpha", resolution=16, n_train=[1, 64], subset=["A", "B"])]
        ['N = 1, A', 'N = 1, B', 'N = 64, A', 'N = 64, B']
    """
    return grids.grid(grids.typed_overrides(axes))


def launch(
    sweep: str | Sequence[Trial],
    settings: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    small: bool = False,
    address: str | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float | None = None,
    retries: int = 5,
    checkpoint_seconds: float = 60,
    report: bool = False,
    record: str | None = None,
    storage: str | None = None,
    **keys: Any,
) -> Sweep:
    """Train a sweep: skip the finished trials, resume the interrupted, start the new. Returns when all have ended.

    The same call again goes on after any interruption. A trial that fails does not end the others: its `state` is
    "failed", and `reason` says why.

    Args:
        sweep: a sweep's name (`gahb-sweep list`), the path of a file with its trials, or trials of your own.
        settings: key → a value or several, in place of the sweep's.
        name: of the sweep in the record; that of `sweep`, with "-small" behind it, if left out. Trials of your own
            need one.
        small: the sweep's small variant.
        address: of a Ray cluster, "auto" or "HOST:6379"; this machine alone if left out.
        cpus_per_trial: cores a trial.
        gpus_per_trial: GPUs a trial, fractions allowed; as many trials a GPU as fit and keep it busy if left out.
        retries: restarts of a trial that has got no further since the last.
        checkpoint_seconds: least time between a trial's checkpoints.
        report: compare each pair as soon as it is trained, and write the report at the end.
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.
        storage: a folder or s3://BUCKET/PREFIX; `GAHB_STORAGE` or ./gahb-storage if left out.
        keys: settings, as arguments.

    Returns:
        the sweep, with the trials of this call.

    Raises:
        UserError: a sweep, a setting, data or a cluster that will not do. Nothing has started.
        KeyboardInterrupt: the user interrupted; every trial has left a checkpoint.

    Example:
        >>> sweep = gahb.launch("demo", tiny, n_train=[1, 64], name="tiny")
        >>> sweep
        sweep tiny: 4 finished
        >>> bool(sweep["16x16-N1-A"].metrics["psnr_gap"] > sweep["16x16-N64-A"].metrics["psnr_gap"])
        True
    """
    check_address(address)
    chosen, place = choose(sweep, {**(settings or {}), **keys}, small=small, name=name), Place.at(record, storage)
    from gahb.execution.launch import LaunchOptions

    options = LaunchOptions(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    with notebook.talk():
        return launch_chosen(chosen, place, options, report=report)


def launch_chosen(chosen: Chosen, place: Place, options: "LaunchOptions", *, report: bool) -> Sweep:
    """The same, once it is known what is to be trained, and where, and with what."""
    from gahb.execution import answers
    from gahb.execution.launch import launch as launch_trials

    name, (book, root) = chosen.name, place
    with answers.as_they_come(name, book, root, options.address, say) if report else nullcontext():
        rows = launch_trials(
            chosen.trials, name, storage=root, record=book, launched=chosen.launched, options=options, say=say
        )
    runs = {run.run_id: run for run in book.by_id([row["run_id"] for row in rows if row["run_id"]])}
    made = [TrialRun(runs[row["run_id"]], row["state"], place) for row in rows if row["run_id"] in runs]
    return Sweep(name, made, rows, place)


def load_sweep(name: str, *, record: str | None = None, storage: str | None = None) -> Sweep:
    """A sweep as the record has it now, under way or finished.

    Args:
        name: of the sweep in the record.
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.
        storage: `GAHB_STORAGE` or ./gahb-storage if left out.

    Raises:
        UserError: no such sweep.

    Example:
        >>> gahb.load_sweep("tiny").df[["name", "state", "n_train", "subset"]]
                  name     state  n_train subset
        0   16x16-N1-A  finished        1      A
        1   16x16-N1-B  finished        1      B
        2  16x16-N64-A  finished       64      A
        3  16x16-N64-B  finished       64      B
    """
    from gahb.planning.plan import states_of, status_rows
    from gahb.tracking import lookup

    place = Place.at(record, storage)
    runs = lookup.sweep_trials(place.record, name)
    states = states_of(runs, place.storage)
    loaded = [TrialRun(run, states[run.run_id], place) for run in runs]
    return Sweep(name, loaded, status_rows(runs, states), place)
