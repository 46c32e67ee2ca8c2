"""`import gahb`: light, the same as the commands, and every example of its docstrings."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import gahb
import gahb.api
import gahb.trial
from gahb.api.answers import _options
from gahb.data.intensity import unit
from gahb.denoising import sampling
from gahb.denoising.sampler import Sampler
from gahb.registry import ANALYSES
from tests.helpers import TINY, Ended, Place, copy

MODULES = [f"gahb.api.{module.name}" for module in pkgutil.iter_modules(gahb.api.__path__)]


@pytest.fixture(scope="module")
def tiny(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A copy of the finished sweep, to which these tests add."""
    return copy(finished, tmp_path_factory.mktemp("api") / "copied")


@pytest.fixture
def here(tiny: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The finished sweep, where the environment says that record and storage are."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tiny.record.uri)
    monkeypatch.setenv("GAHB_STORAGE", str(tiny.storage))
    return tiny


@pytest.mark.parametrize("name", [*MODULES, "gahb.trial"])
def test_the_examples_of_docstrings(name: str, here: Place) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(
        module, extraglobs={"gahb": gahb, "tiny": TINY, "torch": torch}, optionflags=doctest.ELLIPSIS
    )
    assert not failed


def test_every_public_function_has_an_example() -> None:
    for name in set(gahb.__all__) - {"__version__"}:
        thing = getattr(gahb, name)
        assert thing.__doc__, name
        if not isinstance(thing, type):
            assert "Example:" in thing.__doc__, name


def test_names_are_the_same_for_readers_of_types_and_at_run_time() -> None:
    assert set(gahb.__all__) == {*gahb.api.__all__, "__version__"}
    modules = {module.name for module in pkgutil.iter_modules(gahb.__path__)}
    assert not modules & set(gahb.__all__), "a name and a module are one word"
    for name, hint in (("lunch", "did you mean 'launch'"), ("pairs", r"gahb.analyze\('pairs', …\) asks it")):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; {hint}"):
            getattr(gahb, name)
    assert not hasattr(gahb, "__path")


@pytest.mark.parametrize(
    ("code", "light_of"),
    [
        ("pass", {"torch", "ray", "mlflow", "numpy", "pandas", "matplotlib", "typer"}),
        ("gahb.plan('resolution_scaling')", {"torch", "ray", "mlflow", "pandas", "matplotlib"}),
    ],
)
def test_importing_and_planning_import_nothing_heavy(code: str, light_of: set[str], tmp_path: Path) -> None:
    code = f"import gahb, sys; {code}; heavy = {light_of} & sys.modules.keys(); assert not heavy, heavy"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_a_sweep_is_the_same_from_python_and_from_the_commands(command: Callable[..., Ended], here: Place) -> None:
    settings = [f"{key}={value}" for key, value in TINY.items()]
    words = ("demo", *settings, "n_train=1,64")
    plan = gahb.plan("demo", TINY, n_train=[1, 64])
    assert plan.rows == command("gahb-sweep", "plan", *words, "--json").json["trials"]
    assert plan.df["flops"].sum() > 0 and "4 trials" in repr(plan) and "16x16-N1-A" in plan._repr_html_()
    sweep = gahb.launch("demo", TINY, n_train=[1, 64], name="tiny")
    assert sweep.rows == command("gahb-sweep", "launch", *words, "--as", "tiny", "--json").json["trials"]
    assert gahb.load_sweep("tiny").rows == command("gahb-sweep", "status", "tiny", "--json").json["trials"]
    shown = sweep.df.to_string(line_width=80, max_cols=6).splitlines()[0].split()
    assert shown == ["name", "state", "n_train", "...", "train_psnr", "test_psnr", "psnr_gap"]
    assert {*sweep.df["name"]} == {"16x16-N1-A", "16x16-N1-B", "16x16-N64-A", "16x16-N64-B"}


def test_trials_of_ones_own_are_launched_under_a_name(here: Place) -> None:
    trials = gahb.grid(**TINY, n_train=(1, 64), subset=("A", "B"))
    sweep = gahb.launch(trials, name="tiny")
    assert [run.trial for run in sweep] == trials and [row["trained"] for row in sweep.rows] == [False] * 4
    run = sweep["16x16-N64-B"]
    assert run.df["images_seen"].iloc[-1] == TINY["images"]
    assert run.df["psnr_gap"].iloc[-1] == run.metrics["psnr_gap"] == here.record.history(run.run_id, "psnr_gap")[-1][1]
    for wrong, error in (
        (lambda: gahb.launch(trials), 'need a name for their sweep: name="…"'),
        (lambda: gahb.launch(trials, name="a b"), "letters, digits"),
        (lambda: gahb.launch(trials, name="mine", n_train=1), "settings and the small variant are of a sweep"),
        (lambda: gahb.launch("demmo"), "did you mean 'demo'"),
        (lambda: gahb.launch("demo", n_trian=1), "did you mean 'n_train'"),
        (lambda: gahb.launch("demo", address="http://127.0.0.1:8265"), "a job is a command's"),
        (lambda: sweep["16x16-N64-C"], "did you mean '16x16-N64-"),
        (lambda: gahb.load_sweep("tinny"), "no sweep 'tinny'"),
    ):
        with pytest.raises(gahb.UserError, match=error):
            wrong()


def test_numbers_that_mean_the_same_are_the_same_trial() -> None:
    exact = gahb.Trial.of({"dataset": "c_alpha", "resolution": 16, "n_train": 4, "images": 2_000_000, "alpha": 2.0})
    assert (
        gahb.Trial.of(dataset="c_alpha", resolution=16, n_train=np.int64(4), images=2e6, alpha=2).flat() == exact.flat()
    )
    (trial,) = gahb.grid(dataset="c_alpha", resolution=16, n_train=np.array([4]), images=2e6, alpha=2)
    assert [type(value) for value in trial.flat().values()] == [type(value) for value in exact.flat().values()]
    with pytest.raises(gahb.UserError, match=r"images=2.5: must be a whole number"):
        gahb.Trial.of(dataset="c_alpha", resolution=16, n_train=4, images=2.5)


def test_what_the_record_says_cannot_command_a_page(copied: Place) -> None:
    copied.execute("UPDATE runs SET name = '<script>alert(1)</script>' WHERE name = '16x16-N1-A'")
    sweep = gahb.load_sweep("tiny", record=copied.record.uri, storage=str(copied.storage))
    (run,) = (run for run in sweep if "alert" in run.name)
    for page in (sweep._repr_html_(), run._repr_html_()):
        assert "alert(1)" in page and "<script>" not in page


def test_an_answer_is_that_of_the_command(command: Callable[..., Ended], here: Place) -> None:
    sweep = gahb.load_sweep("tiny")
    answer = gahb.scaling(sweep, threshold=2)
    told = command("gahb-analyze", "scaling", "tiny", "--threshold", "2", "--json").json
    assert {key: told[key] for key in answer.data} == answer.data
    analysis = here.record.by_id([answer.run_id])[0]
    assert analysis.params == {"threshold": "2", "gap": "sigma"} and (answer.folder / "scaling.svg").exists()
    assert [*answer.tables] == ["scaling", "crossings", "trials"] and answer.df is answer.tables["scaling"]
    page = answer._repr_html_()
    assert "scaling of tiny" in page and page.count("<img") == 1 and "falls below 2 dB" in page


def test_runs_stand_for_their_names_and_for_where_they_were_found(finished: Place) -> None:
    sweep = gahb.load_sweep("tiny", record=finished.record.uri, storage=str(finished.storage))
    a, b = (sweep[f"16x16-N64-{subset}"] for subset in "AB")
    answer = gahb.compare(a, b, samples=4)
    assert answer.result.runs == [a.run, b.run] and len(answer.df) == 4
    assert gahb.analyze("basis", a, vectors="0:3").df["k"].iloc[-1] == 255
    assert not Path("mlflow.db").exists()


@pytest.mark.parametrize(
    ("kind", "arguments", "options", "error"),
    [
        ("pars", ["tiny"], {}, "unknown analysis 'pars'; did you mean 'pairs'"),
        ("pairs", [], {}, "pairs needs sweep"),
        ("pairs", ["tiny"], {"sample": 2}, "pairs takes no 'sample'; did you mean 'samples'"),
        ("curves", ["tiny", (1, 2), 3], {}, "curves takes sweep, fit; 3 were given"),
        ("pairs", ["tiny"], {"samples": 1}, "samples=1: must be at least 2"),
        ("pairs", ["tiny"], {"samples": 2.5}, "samples=2.5: must be a whole number"),
        ("basis", ["x"], {"sigma": "a"}, "sigma='a': must be a finite number"),
        ("scaling", ["tiny"], {"gap": "dbs"}, "gap='dbs'; did you mean 'db'"),
        ("scaling", ["tinny"], {}, "no sweep 'tinny'"),
        ("pairs", ["tiny"], {"address": "http://127.0.0.1:1"}, "a job is a command's"),
    ],
)
def test_questions_that_cannot_be_asked(
    here: Place, kind: str, arguments: list[Any], options: dict[str, Any], error: str
) -> None:
    with pytest.raises(gahb.UserError, match=re.escape(error)):
        gahb.analyze(kind, *arguments, **options)


def test_options_are_what_the_command_makes_of_them() -> None:
    for kind, given, expected in (
        ("basis", {"runs": "a", "top": np.int64(3)}, {"runs": ["a"], "top": 3}),
        ("phase", {"sweep": "s", "predict": 3e5, "gap": "db"}, {"sweep": "s", "predict": [3e5], "gap": "db"}),
        ("curves", {"sweep": "s", "fit": [18, 30]}, {"sweep": "s", "fit": (18, 30)}),
    ):
        assert _options(kind, ANALYSES[kind], [], given) == expected


def test_a_denoiser_does_from_python_what_the_record_says_it_did(here: Place) -> None:
    run = gahb.load_run("16x16-N64-A")
    denoise, train, test = gahb.load(run), gahb.load_images(run), gahb.load_images(run, "held-out")
    stored = pd.read_csv(here.artifact(run.name, "psnr_curve.csv"))
    stored = stored[stored["images_seen"] == stored["images_seen"].max()]
    for part, images in (("train", train), ("test", test)):
        curve = gahb.psnr_curve(denoise, images, len(test))
        assert curve["output_psnr"].tolist() == pytest.approx(stored[f"{part}_psnr"].tolist(), abs=1e-4)
    model = here.model(run.name)
    torch.testing.assert_close(train, unit(model.train_images), rtol=0, atol=0)
    drawn = gahb.sample(denoise, 4, train, seed=1, beta=0.5)
    same = sampling.sample(model.denoiser, 4, (1, 16, 16), mean=float(train.mean()), seed=1, sampler=Sampler(beta=0.5))
    torch.testing.assert_close(drawn.images, same.images, rtol=0, atol=0)
    found = gahb.spectrum(denoise, test[:1] + 0.1)
    assert (
        found.df["eigenvalue"].sum() == pytest.approx(found.trace) and len(gahb.spectrum(denoise, test[:1], 3).df) == 3
    )
    with pytest.raises(gahb.UserError, match="must be 'train' or 'held-out'"):
        gahb.load_images(run, "test")  # type: ignore[arg-type]
