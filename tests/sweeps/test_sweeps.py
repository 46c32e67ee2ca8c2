import re
from pathlib import Path

import pytest
from gahb_sweeps.catalog import SWEEPS, description


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_docstring_says_figure_command_cost_and_expectation(name: str) -> None:
    text = SWEEPS[name].__doc__ or ""
    assert description(name).endswith(".")
    assert "Figure" in text and f"gahb-sweep launch {name}" in text and "Cost:" in text and "Expected:" in text
    assert re.search(rf"Cost: {len(SWEEPS[name].trials())} trials", text)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_trial_has_its_counterpart(name: str) -> None:
    trials = SWEEPS[name].trials()
    keys = [tuple(sorted((k, repr(v)) for k, v in t.flat().items() if k != "subset")) for t in trials]
    assert all(keys.count(key) == 2 for key in keys)


def test_every_module_is_in_the_catalog() -> None:
    folder = Path(__import__("gahb_sweeps").__file__).parent
    assert {p.stem for p in folder.glob("*.py")} - {"__init__", "cli", "catalog"} == set(SWEEPS)
