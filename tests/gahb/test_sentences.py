import pytest

from gahb.sentences import crossing, of_replicates, three_digits, with_interval


def test_numbers_have_three_digits_and_no_exponent() -> None:
    numbers = {0.0243: "0.0243", 2: "2.00", 2.434: "2.43", 18.04: "18.0", 99.96: "100", 1234: "1,230", 98765: "98,800"}
    assert {n: three_digits(n) for n in numbers} == numbers


def test_an_interval_says_what_it_rests_on() -> None:
    assert with_interval(15.8, 14.2, 17.4) == "15.8 (95 % 14.2 … 17.4)"
    assert with_interval(2.431, 2.31, 2.43, of_replicates(2, {"B", "A"})) == "2.43 (A and B: 2.31 … 2.43)"
    assert of_replicates(2, {"A"}) == "two replicates:" and of_replicates(6, {"A", "B"}) == "95 % over 6 replicates:"
    assert with_interval(15.8, None, None, of_replicates(1, {"A"})) == "15.8"
    assert with_interval(30, None, float("nan")) == "30.0 (95 % below the smallest N … above the largest N)"


@pytest.mark.parametrize(
    ("bound", "falls", "told"),
    [
        (None, True, "it falls below 1 dB at N* = 5"),
        ("< 10", True, "it is below 1 dB already at the smallest N (10)"),
        ("> 1024", True, "it is still above 1 dB at the largest N (1,024)"),
        (None, False, "it rises above 1 dB at N* = 5"),
        ("< 10", False, "it is above 1 dB already at the smallest N (10)"),
        ("> 1024", False, "it is still below 1 dB at the largest N (1,024)"),
    ],
)
def test_where_a_threshold_is_crossed_is_a_sentence(bound: str | None, falls: bool, told: str) -> None:
    assert crossing("it", "1 dB", "5", bound, falls=falls) == told
