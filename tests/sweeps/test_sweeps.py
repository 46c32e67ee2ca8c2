import re
from pathlib import Path

import pytest
from gahb_sweeps.catalog import SWEEPS, description

from gahb.cost import training_flops
from gahb.trial import parse_overrides


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
    costs = []
    for words in re.findall(r"^    gahb-sweep launch (.*)$", SWEEPS[name].__doc__ or "", re.MULTILINE):
        sweep, *settings = words.partition(" --as ")[0].split()
        assert sweep == name
        costs.append(sum(training_flops(trial) for trial in SWEEPS[name].trials(parse_overrides(settings))))
    assert min(costs) < 2e14, "no small variant"


@pytest.mark.parametrize("name", SWEEPS)
def test_every_trial_has_its_counterpart_or_none_has(name: str) -> None:
    trials = SWEEPS[name].trials()
    if all(trial.subset == "A" for trial in trials):
        return
    keys = [tuple(sorted((k, repr(v)) for k, v in t.flat().items() if k != "subset")) for t in trials]
    assert all(keys.count(key) == 2 for key in keys)


def test_every_module_is_in_the_catalog() -> None:
    folder = Path(__import__("gahb_sweeps").__file__).parent
    assert {p.stem for p in folder.glob("*.py")} - {"__init__", "cli", "catalog"} == set(SWEEPS)
