import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gahb_analysis import catalog as analyses
from gahb_analysis.basis import numbers
from gahb_analysis.report import stated_by
from gahb_sweeps.catalog import SWEEPS, description

from gahb.grids import parse_overrides
from gahb.training.cost import training_flops
from tests.helpers import Ended, Place

assert analyses, "which stated ones are named"


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_docstring_says_figure_command_cost_and_expectation(name: str) -> None:
    text = SWEEPS[name].__doc__ or ""
    assert description(name).endswith(".")
    assert "Figure" in text and f"gahb-sweep launch {name}" in text and "Cost:" in text and "Expected:" in text
    assert re.search(rf"Cost: {len(SWEEPS[name].trials())} trials? of", text)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_docstring_has_the_cost_that_the_plan_shows(name: str) -> None:
    stated = re.search(r"([\d.]+)·10([⁰¹²³⁴-⁹]+) FLOPs in all", SWEEPS[name].__doc__ or "")
    assert stated, "no FLOPs"
    exponent = stated[2].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))
    digits = len(stated[1].partition(".")[2])
    total = sum(training_flops(trial) for trial in SWEEPS[name].trials())
    assert f"{total:.{digits}e}" == f"{float(stated[1] + 'e' + exponent):.{digits}e}"


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_commands_can_be_typed(name: str) -> None:
    commands = re.findall(r"^    gahb-sweep launch (.*)$", SWEEPS[name].__doc__ or "", re.MULTILINE)
    for words in commands:
        sweep, *settings = words.partition(" --")[0].split()
        assert sweep == name and SWEEPS[name].trials(parse_overrides(settings))
    assert f"{name} --small" in commands or name == "demo"


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_small_variant_is_of_its_kind_and_small(name: str) -> None:
    module = SWEEPS[name]
    small, whole = module.trials(module.SMALL), module.trials()
    assert sum(training_flops(trial) for trial in small) < 5e13
    assert {trial.dataset.name for trial in small} == {trial.dataset.name for trial in whole}
    assert len({trial.subset for trial in small}) == len({trial.subset for trial in whole})


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_small_variant_trains_and_is_reported(
    name: str, command: Callable[..., Ended], ray_here: None, place: Place
) -> None:
    rows = command("gahb-sweep", "launch", name, "--small", "--as", "small", "--json", *place.flags).json["trials"]
    assert {row["state"] for row in rows} == {"finished"}
    report = command("gahb-analyze", "report", "small", "--json", *place.flags).json
    assert not report["refused"] and "curves of small" in report["shown"]
    page = (place.record.artifacts(report["run_id"]) / "report.html").read_text()
    assert page.count("data:image/png") >= len(report["shown"])


BUILT_IN = {name for name in SWEEPS if not SWEEPS.guest(name)}

PAIRED = ("demo", "transition", "bf_cnn_transition", "resolution_scaling", "architecture")
"""The sweeps that compare denoisers of A and of B; the others look at one at a time."""


@pytest.mark.parametrize("name", SWEEPS)
def test_every_trial_has_its_counterpart_where_pairs_are_compared(name: str) -> None:
    trials = set(SWEEPS[name].trials())
    assert {trial.subset for trial in trials} == ({"A", "B"} if name in PAIRED else {"A"})
    on_a, on_b = ({replace(trial, subset="A") for trial in trials if trial.subset == subset} for subset in "AB")
    assert on_a == on_b or name not in PAIRED


def test_every_module_is_in_the_catalog() -> None:
    folder = Path(__import__("gahb_sweeps").__file__).parent
    assert {p.stem for p in folder.glob("*.py")} - {"__init__", "cli", "catalog"} == BUILT_IN


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("small", [False, True])
def test_what_a_sweep_states_is_about_trials_that_it_has(name: str, small: bool) -> None:
    module = SWEEPS[name]
    trials = [trial.flat() for trial in module.trials(module.SMALL if small else {})]
    for stated in stated_by(name):
        about = [trial for trial in trials if stated.of.items() <= trial.items()]
        assert about or small, stated
        assert len(about) > 1 or not stated.together


def test_sweeps_state_the_papers_noise_levels_and_vectors() -> None:
    stated = {name: [s.options for s in stated_by(name) if s.kind == "basis"] for name in BUILT_IN}
    sigmas = {name: {options.get("sigma") for options in found} for name, found in stated.items() if found}
    assert sigmas == {
        "transition": {0.15},  # Figure 3
        "c_alpha_slopes": {None},  # 4, 16 and 18 name none
        "contour_regularity": {0.2},  # 17
        "disks": {0.04},  # 5
        "single_image_ray": {0.04},  # 19
        "sinusoids": {0.08},  # 20
        "shuffled_faces": {0.3},  # 21
    }
    assert numbers(stated["transition"][0]["vectors"]) == [5, *range(17, 246, 12)]
    assert numbers(stated["shuffled_faces"][0]["vectors"]) == [5, 17, 29, 41, 53]
