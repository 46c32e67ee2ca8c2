from gahb.quantities import amount, duration, scientific


def test_numbers_are_short() -> None:
    assert [amount(n) for n in (7, 950, 12_800, 2.5e6, 999_600)] == ["7", "950", "12.8k", "2.5M", "1M"]
    times = [duration(seconds) for seconds in (None, 0.4, 89, 91, 3600, 12_000, 2e5)]
    assert times == ["–", "0 s", "89 s", "1.5 min", "60 min", "3.3 h", "2.3 days"]
    assert [scientific(n) for n in (0, 6.28e12, 9.99e19)] == ["0", "6.3·10¹²", "1.0·10²⁰"]
