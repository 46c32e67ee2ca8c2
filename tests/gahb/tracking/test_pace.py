import pytest

from gahb.tracking import pace
from gahb.tracking.pace import Pace


def test_speed_is_that_of_the_last_minute_and_the_first_step_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    measured = Pace()
    assert measured.news() == "", "training has not begun"
    measured.note(32)
    assert measured.news() == ""
    now = 10.0
    measured.note(532)
    assert measured.news() == "532:50.000"
    assert measured.news() == "", "nothing has moved"
    for look in range(1, pace.LOOKS):
        now = 10.0 + 8 * look
        measured.note(532 + 800 * look)
        news = measured.news()
    assert news == f"{532 + 800 * (pace.LOOKS - 1)}:100.000"
