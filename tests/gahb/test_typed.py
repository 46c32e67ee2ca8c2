import sys
from pathlib import Path

import pytest

from gahb.typed import command_line


def test_a_command_line_works_where_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "my venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("gahb-sweep", "gahb-analyze"):
        (programs / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(programs / "gahb-analyze")])
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line("gahb-sweep", "ui", "my demo") == "'my venv/bin/gahb-sweep' ui 'my demo'"
    monkeypatch.chdir(programs)
    assert command_line("gahb-sweep") == f"'{programs}/gahb-sweep'"
    monkeypatch.setenv("PATH", str(programs))
    assert command_line("gahb-sweep", "ui", "demo") == "gahb-sweep ui demo"
