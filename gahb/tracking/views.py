"""How the MLflow UI shows a sweep: saved views of its experiments, and descriptions that link to them.

A view is a tag of the experiment. Nothing makes an experiment's bare address open one, so the commands print links that
do. The UI leaves out columns and charts of what is not there; to an MLflow that knows no views they are mere tags.

The axis of a chart can be logarithmic if it is that of the step. So what stands against N is a metric `by_n/…`, which
is logged once, with N as its step; and as params are sorted as text, N is a metric, too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gahb.text import in_markdown
from gahb.tracking.run import BY_N, METRICS, PSNRS, N, Run, Tag, analyses_of
from gahb.tracking.ui_page import images, line, packed, page, section

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW, NOTE = "mlflow.sharedViewState.", "mlflow.note.content"
"""The tags of a view, and of a description in Markdown; of an experiment's the UI shows the first line."""

MODELS = ("mlflow.experimentKind", "custom_model_development")
"""What an experiment is: models, rather than conversations with one; where the UI asks which pages to open."""

CREATED = 1_700_000_000_000
"""When the first view was made, in milliseconds, as far as the UI knows, which lists the newest first."""

NAMED = (3, 15)
"""The first MLflow whose views have names. To the ones before, a view is its page alone."""

SIMILARITIES = ("excess", "cosine")
"""What `gahb-analyze pairs` logs by N."""

EXAMPLES = ("denoised", "samples")
"""The images that a trial logs by images seen."""

UNCHARTED = ("images_seen", "loss", "learning_rate", "psnr_gap_db", "images_per_second", "peak_memory_gb", N)
"""Metrics of a trial that no chart is of."""


@dataclass(frozen=True)
class View:
    """A saved view: its `key` in links, its `name` in descriptions and in the UI's menu, the page, and whether that is
    one of charts rather than a table."""

    key: str
    name: str
    page: dict[str, Any]
    charts: bool = True

    def link(self, experiment_id: str) -> str:
        """The part of the UI's address that opens it."""
        mode = "CHART" if self.charts else "TABLE"
        return f"{runs_link(experiment_id)}&compareRunsMode={mode}&viewStateShareKey={self.key}"


def runs_link(experiment_id: str) -> str:
    """The part of the UI's address that shows the runs of an experiment."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def run_link(experiment_id: str, run_id: str) -> str:
    """The part of the UI's address that shows a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def models_link(experiment_id: str) -> str:
    """The part of the UI's address that shows the checkpoints of an experiment."""
    return f"#/experiments/{experiment_id}/models?workflowType=machine_learning"


def sweep_link(client: "MlflowClient", sweep: str) -> str:
    """The part of the UI's address that opens a sweep's trials on the right columns; that of all experiments if the
    sweep has no experiment, as when another's has all of its trials."""
    found = client.get_experiment_by_name(sweep)
    if not found:
        return "#/experiments"
    view = of_trials()[0]
    known = f"{VIEW}{view.key}" in found.tags  # else an earlier gahb made it
    return view.link(found.experiment_id) if known else runs_link(found.experiment_id)


def of_trials(images_seen: int = 0) -> list[View]:
    """The views of a sweep's trials, the one to open first; examples are shown after so many images seen."""
    every = section("every", "dB, against images seen")
    law = section("law", "Against N, which is the step")
    examples = section("examples", "By images seen, which the slider sets", columns=1, height=700)
    against_images = [line(every, "psnr_gap"), line(every, *PSNRS[:2])]
    against_n = [
        line(law, f"{BY_N}psnr_gap", log_y=True),
        line(law, *(f"{BY_N}{key}" for key in PSNRS[:2])),
        line(law, *(f"{BY_N}{key}" for key in SIMILARITIES)),
    ]
    denoised = images(examples, "denoised", step=images_seen)  # and samples, if there are, by themselves
    metrics = {*METRICS, *UNCHARTED, *(f"{BY_N}{key}" for key in (*PSNRS, *SIMILARITIES))}
    columns = [f"metrics.`{key}`" for key in (N, "psnr_gap", "train_psnr", "test_psnr")]
    columns += [f"params.`{key}`" for key in ("resolution", "subset", "architecture")]

    def trials(**more: Any) -> dict[str, Any]:
        return page(columns, columns[0], without=metrics, **more)

    charts = {"cards": against_images + against_n, "sections": [every, law], "without_images": EXAMPLES}
    by_curve = {"cards": against_n, "sections": [law], "without_images": EXAMPLES}
    by_images = {"cards": [denoised], "sections": [examples], "only": "params.subset = 'A'"}
    return [
        View("gahb-trials", "trials", trials(), charts=False),
        View("gahb-charts", "charts", trials(**charts)),
        View("gahb-law", "against N", trials(**by_curve, group_by=("resolution", "architecture"))),
        View("gahb-images", "denoised images", trials(**by_images)),
    ]


def of_analyses(analyses: Sequence[Run] = ()) -> list[View]:
    """The views of a sweep's analyses, the one to open first."""
    drawn = section("drawn", "A click enlarges", columns=3, height=400)
    cards = [images(drawn, picture) for picture in sorted({name for run in analyses for name in run.pictures})]
    metrics = {key for run in analyses for key in run.metrics}
    columns = [f"tags.`{Tag.KIND}`", "attributes.`Description`"]

    def newest_first(**more: Any) -> dict[str, Any]:
        return page(columns, "attributes.start_time", ascending=False, **more)

    pictures = newest_first(sections=[drawn], cards=cards, without=metrics)
    return [
        View("gahb-pictures", "pictures", pictures),
        View("gahb-analyses", "analyses", newest_first(), charts=False),
    ]


def set_up_trials(client: "MlflowClient", sweep: str, images_seen: int) -> None:
    """Let the UI show a sweep's trials so. What the experiment has of it already is not written again.

    Args:
        client: MLflow's.
        sweep: its name.
        images_seen: after which examples are shown at first.
    """
    trials, answers = (client.get_experiment_by_name(name) for name in (sweep, analyses_of(sweep)))
    if trials:
        _save(client, trials, of_trials(images_seen))
    _describe(client, trials, answers)


def set_up_analyses(client: "MlflowClient", sweep: str, analyses: Sequence[Run]) -> None:
    """Let the UI show a sweep's analyses so, which are all that there are, and have its trials lead to them."""
    trials, answers = (client.get_experiment_by_name(name) for name in (sweep, analyses_of(sweep)))
    if answers:
        _save(client, answers, of_analyses(analyses))
    _describe(client, trials, answers)


def _save(client: "MlflowClient", experiment: "Experiment", views: Sequence[View]) -> None:
    from mlflow import __version__

    named = tuple(int(part) for part in __version__.split(".")[:2]) >= NAMED
    for i, view in enumerate(views):
        state = packed(view.page)
        about = {"name": view.name, "createdAt": CREATED - i, "updatedAt": CREATED, "state": state}
        _set(client, experiment, f"{VIEW}{view.key}", json.dumps(about) if named else state)


def _describe(client: "MlflowClient", trials: "Experiment | None", answers: "Experiment | None") -> None:
    """Say what the two experiments of a sweep are, with links to the views of both."""
    links = list[tuple[str, str]]()
    if trials:
        links += [(view.name, view.link(trials.experiment_id)) for view in of_trials()]
        links.append(("checkpoints", models_link(trials.experiment_id)))
    if answers:
        links += [(view.name, view.link(answers.experiment_id)) for view in of_analyses()]
    note = " | ".join(f"[{words}]({address})" for words, address in links)
    for experiment in filter(None, (trials, answers)):
        _set(client, experiment, NOTE, f"{in_markdown(experiment.name)}: {note}")
        _set(client, experiment, *MODELS)


def _set(client: "MlflowClient", experiment: "Experiment", key: str, value: str) -> None:
    if experiment.tags.get(key) != value:
        client.set_experiment_tag(experiment.experiment_id, key, value)
