"""What `import gahb` offers: everything that the commands do, with tables and figures in the place of printed ones."""

from gahb.api.answers import Answer, analyze, compare, memorization, scaling
from gahb.api.denoisers import psnr_curve, sample, show_images, spectrum
from gahb.api.loading import load, load_images
from gahb.api.plans import Plan, plan
from gahb.api.runs import TrialRun, load_run
from gahb.api.sweeps import Sweep, grid, launch, load_sweep
from gahb.errors import UserError
from gahb.trial import Trial

__all__ = [
    "Answer",
    "Plan",
    "Sweep",
    "Trial",
    "TrialRun",
    "UserError",
    "analyze",
    "compare",
    "grid",
    "launch",
    "load",
    "load_images",
    "load_run",
    "load_sweep",
    "memorization",
    "plan",
    "psnr_curve",
    "sample",
    "scaling",
    "show_images",
    "spectrum",
]
