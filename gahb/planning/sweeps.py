"""Which trials are meant: those of a sweep, by its name or the path of its file, or some of one's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gahb.errors import UserError, did_you_mean
from gahb.grids import typed_overrides
from gahb.registry import SWEEPS, load_file
from gahb.trial import Trial


@dataclass(frozen=True)
class Chosen:
    """Trials that belong together.

    Args:
        trials: at least one, without repetition.
        name: of their sweep in the record.
        launched: the sweep that they are of, as `gahb-sweep list` names it; None for trials of one's own.
    """

    trials: Sequence[Trial]
    name: str
    launched: str | None = None


def choose(
    sweep: str | Sequence[Trial],
    settings: Mapping[str, Any] | None = None,
    *,
    small: bool = False,
    name: str | None = None,
    ending: str = "",
) -> Chosen:
    """The trials that a user means to launch.

    Args:
        sweep, settings, small: see `trials_of`.
        name: of the sweep in the record; its own, with "-small" and `ending` behind it, if left out.
        ending: of that name.

    Raises:
        UserError: as for `trials_of`; trials of one's own without a name, or a name that will not do.
    """
    launched = find(sweep) if isinstance(sweep, str) else None
    if name is None:
        if launched is None:
            raise UserError('trials of your own need a name for their sweep: name="…"')
        name = f"{launched}{'-small' if small else ''}{ending}"
    if not re.fullmatch("[A-Za-z0-9_-]{1,100}", name):
        raise UserError(f"the name {name!r} of a sweep: letters, digits, - and _ only, at most 100")
    return Chosen(trials_of(sweep, settings, small=small), name, launched)


def trials_of(
    sweep: str | Sequence[Trial], settings: Mapping[str, Any] | None = None, *, small: bool = False
) -> Sequence[Trial]:
    """The trials that a user means.

    Args:
        sweep: a sweep's name, the path of a file with its trials, or trials.
        settings: in place of the sweep's: key → a value, or several.
        small: the sweep's small variant.

    Raises:
        UserError: no such sweep, or a setting that it does not take.
    """
    if isinstance(sweep, str):
        name = find(sweep)  # first, as its file may bring keys
        return sweep_trials(name, typed_overrides(settings or {}), small=small)
    if settings or small:
        raise UserError("settings and the small variant are of a sweep that has a name; trials are taken as they are")
    trials = list(dict.fromkeys(sweep))
    if not trials or not all(isinstance(trial, Trial) for trial in trials):
        raise UserError("a sweep is its name, the path of its file, or a list of trials, such as gahb.grid makes")
    return trials


def find(name: str) -> str:
    """The name of the sweep that a user means: a name, or the path of a file with a function `trials`, which is loaded.

    Raises:
        UserError: no such sweep, or a file that will not do.
    """
    if name.endswith(".py"):
        origin, stem = load_file(name), Path(name).stem
        if stem not in SWEEPS or SWEEPS.origin(stem) != origin:
            raise UserError(f"{name} has no function trials(overrides), so it is no sweep")
        return stem
    if name not in SWEEPS:
        raise UserError(f"no sweep {name!r}; {did_you_mean(name, SWEEPS)}")
    return name


def sweep_trials(name: str, overrides: Mapping[str, Any] | None = None, *, small: bool = False) -> list[Trial]:
    """The trials of a sweep.

    Args:
        overrides: settings in place of the sweep's.
        small: of its small variant.

    Raises:
        UserError: an override that it does not take, no small variant, or a guest's sweep that does not fulfil its
            contract.
    """
    sweep = SWEEPS[name]
    variant = getattr(sweep, "SMALL", None)
    if small and variant is None:
        raise UserError(f"the sweep {name!r} has no small variant; leave out --small")
    settings = {**(variant if small and variant else {}), **(overrides or {})}
    if not SWEEPS.guest(name):
        return list(sweep.trials(settings))
    what = f"the sweep {name!r} of {SWEEPS.origin(name)}"
    try:
        found = list(sweep.trials(settings))
    except UserError:
        raise
    except Exception as error:  # a guest's function may raise anything
        raise UserError(f"{what}: trials(overrides) raised {type(error).__name__}: {error}") from None
    if not found or not all(isinstance(trial, Trial) for trial in found):
        raise UserError(f"{what}: trials(overrides) must return trials, at least one, such as gahb.grids.grid makes")
    return found
