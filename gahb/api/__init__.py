"""What `import gahb` offers: everything that the commands do, with tables and figures in the place of printed ones."""

from gahb.api.loading import load
from gahb.api.plans import Plan, plan
from gahb.api.runs import TrialRun, load_run
from gahb.api.sweeps import Sweep, grid, launch, load_sweep
from gahb.errors import UserError
from gahb.trial import Trial

__all__ = [
    "Plan",
    "Sweep",
    "Trial",
    "TrialRun",
    "UserError",
    "grid",
    "launch",
    "load",
    "load_run",
    "load_sweep",
    "plan",
]
