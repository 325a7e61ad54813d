"""Numbers as shown."""

import pytest

from hfbench.report.words import interval_text, margin, memory_unit, rate, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.4949, "1.49"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (0.00001234, "0.0000123"),
        (40, "40.0"),
        (123.6, "124"),
        (1234.5, "1230"),
        (98765, "98800"),
        (999_400_000, "999000000"),
        (3.4567e17, "3.46e17"),
        (-1e9, "-1.00e9"),
        (-0.5, "-0.500"),
        (0, "0"),
        (None, "–"),
    ],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


def test_a_margin_is_half_the_interval() -> None:
    assert margin(2.0, 1.96, 2.02) == "±1.5%"
    assert margin(2.0, 1.0, 7.0) == "> ±100%"
    assert margin(1000.0, 999.9, 1000.1) == "±0.01%"
    assert margin(2.0, None, None) == margin(None, None, None) == margin(0.0, -1.0, 1.0) == ""


def test_memory_is_shown_in_one_unit() -> None:
    assert memory_unit(600 * 2**20) == ("MiB", 2**20)
    assert memory_unit(2**30) == ("GiB", 2**30)


def test_rates_get_a_prefix() -> None:
    assert rate(2.13e10, "B") == "21.3 GB/s"
    assert rate(9.89e14, "FLOP") == "989 TFLOP/s"
    assert rate(12, "B") == "12.0 B/s"


def test_an_interval_that_says_nothing_is_not_shown_as_numbers() -> None:
    assert interval_text(0.17, 0.15, 0.19) == "0.150 … 0.190"
    assert interval_text(0.17, 0.14, 1.95e18) == "not known"
    assert interval_text(0.17, 0.0002, 0.2) == "not known"
    assert interval_text(0.17, None, None) == "–"
