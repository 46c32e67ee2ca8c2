"""How flat a sweep's PSNR gap is."""

import statistics

from gahb.plugins import AnalysisResult, Question, described, finished_trials


@described("Flatness", reading="The spread of the gap.", asks=lambda sweep, runs: [Question({"sweep": sweep}, runs)])
def run(context, sweep: str, power: float = 2.0):
    """Spread of the PSNR gap over the trials of a sweep."""
    runs = finished_trials(context.record, sweep)
    gaps = context.map_on_cluster(gap, runs, [run.name for run in runs])
    data = {"flatness": statistics.pstdev(gaps) ** power}
    settings = {"power": power}
    name = f"flatness of {sweep}"
    return AnalysisResult(name=name, sweep=sweep, runs=runs, settings=settings, metrics=data, data=data, shown=[[data]])


def gap(context, run):
    return run.metrics["psnr_gap"]
