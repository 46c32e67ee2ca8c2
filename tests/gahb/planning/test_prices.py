from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gahb.errors import UserError
from gahb.planning.prices import costs, parse
from tests.helpers import Ended, Place

ROWS = [{"hours": 2.0, "worker": "large"}, {"hours": 1.0, "worker": "small"}, {"hours": None, "worker": "small"}]


def test_a_price_is_of_every_device_or_of_each_type() -> None:
    assert costs(parse("2.5"), ROWS) == [5.0, 2.5, None]
    assert costs(parse("large=4,small=1e-1"), [*ROWS, {"hours": 3.0, "worker": None}]) == [8.0, 0.1, None, None]
    assert costs(parse("0"), [{"hours": 2.0}]) == [0.0]


@pytest.mark.parametrize(
    "text", ["", "cheap", "-1", "nan", "large=inf", "1,2", "large=1,large=2", "1,large=2", "large="]
)
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--price"):
        parse(text)


def test_a_type_without_a_price_is_refused() -> None:
    with pytest.raises(UserError, match="none for the worker type 'small'; did you mean 'smal'"):
        costs(parse("large=1,smal=2"), ROWS)
    with pytest.raises(UserError, match="--cluster"):
        costs(parse("large=1"), [{"hours": 1.0}])


def test_a_plan_says_what_all_costs_and_what_is_left(
    finished: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    settings = ["width=8", "n_test=32", "images=9600", "learning_rate=2e-3", "schedule=cosine", "n_train=1,2"]
    plan = ("plan", "demo", *settings, *finished.flags)
    rows = command("gahb-sweep", *plan, "--price", "2.5", "--json").json["trials"]
    assert [row["cost"] for row in rows] == pytest.approx([2.5 * row["hours"] for row in rows])
    assert "cost" not in command("gahb-sweep", *plan, "--json").json["trials"][0]
    scale = 1 / sum(row["hours"] for row in rows)
    ended = command("gahb-sweep", *plan, "--price", f"{100 * scale:.9f}")
    left = 100 * scale * sum(row["hours"] for row in rows if row["state"] == "new")
    assert f"cost: 100.00, of which {left:.2f} are not spent yet" in ended.err and 0 < left < 100
    types = {"cpu-node": {"resources": {"CPU": 4, "memory": 16e9}, "max_workers": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"max_workers": 1, "available_node_types": types}))
    ended = command("gahb-sweep", *plan, "--cluster", "c.yaml", "--price", "gpu=3")
    assert ended.code == 2 and "none for the worker type 'cpu-node'" in ended.err
