"""How `make docs-test` runs what is shown: in one shell a page, whose failures count, on less than what is written."""

from collections.abc import Iterator

import pytest

from tests import smaller
from tests.documents import Page


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.close()


def test_a_page_is_one_shell_and_a_command_that_fails_ends_it(page: Page) -> None:
    page.bash("SETTINGS='a b' && export SHOWN=yes && mkdir sub && cd sub")
    page.bash('[ "$SETTINGS" = "a b" ] && [ "$(printenv SHOWN)" = yes ] && [ "$(basename $PWD)" = sub ]')
    with pytest.raises(AssertionError, match="status 1\n"):
        page.bash("false\ntrue")
    with pytest.raises(AssertionError, match="did you mean 'transition'"):
        page.bash("gahb-sweep plan transitoin")


def test_python_is_written_where_it_names_a_file_and_else_goes_on(page: Page) -> None:
    page.python("# mine.py\nx = 3\n")
    page.python("from mine import x\n")
    page.python("assert x == 3\n")
    with pytest.raises(AssertionError, match="NameError"):
        page.python("y\n")


def test_what_a_page_started_is_ended_with_it(page: Page) -> None:
    page.bash("sleep 1000 > /dev/null 2>&1 & echo $! > pid")
    page.bash("kill -0 $(cat pid)")
    smaller.end(page.mark)
    with pytest.raises(AssertionError):
        page.bash("for i in 1 2 3; do kill -0 $(cat pid) && sleep 1; done")


def test_less_is_trained_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(smaller.DATA, "/there")
    shown = ["launch", "transition", "dataset=/data/a.zip", "n_train=1,100,98000", "images=1e6", "--as", "x"]
    words = smaller.words_of(shown)
    assert words == ["launch", "transition", "--as", "x", *words[4:]]
    settings = dict(word.split("=") for word in words[4:])
    assert settings == {
        "dataset": "/there/a.zip",
        "n_train": "1,100,1000",
        "images": "2560",
        "width": "8",
        "resolution": "16",
        "n_test": "16",
    }
    longer = smaller.settings("transition", {"images": "2e6"})
    assert int(longer["images"]) > 1280, "a longer training stays longer"
    assert smaller.words_of(["calibrate", "images=1e9"]) == ["calibrate", "images=1e9"]
