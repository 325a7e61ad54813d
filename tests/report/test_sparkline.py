"""Pictures of numbers in a line of text, worked out by hand."""

from hfbench.report.detail import slowest_of_each, span_bar, sparkline


def test_each_value_has_a_mark_of_its_height() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 0, 8) == "▁▂▃▄▅▆▇██"
    assert sparkline([2, None, 4], 2, 4, marks="_#") == "_ #"


def test_the_scale_is_given_and_not_left() -> None:
    assert sparkline([5, 5], 0, 10, marks="_-#") == "--"
    assert sparkline([-9, 99], 0, 10, marks="_-#") == "_#"
    assert sparkline([3, 3], 3, 3) == "▁▁"


def test_many_values_keep_their_slowest() -> None:
    assert slowest_of_each([1, 9, 2, 3, 4], 3) == ([9, 3, 4], 2)
    assert slowest_of_each([1, 2], 3) == ([1, 2], 1)
    assert slowest_of_each([], 3) == ([], 1)


def test_a_bar_is_where_and_as_long_as_the_span() -> None:
    assert span_bar(0, 5, 10, 10, "#") == "#####"
    assert span_bar(5, 10, 10, 10, "#") == "     #####"
    assert span_bar(9.99, 10, 10, 10, "#") == "         #"
    assert span_bar(2, 2.001, 10, 10, "#") == "  #"
    assert span_bar(0, 1, 0, 10) == ""
