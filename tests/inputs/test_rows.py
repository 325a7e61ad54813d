"""Rows of exact length, against rows written out by hand."""

import numpy as np
import pytest

from hfbench.inputs.prepare import count_distinct, exact_rows

NO_PREFIX = np.array([], dtype=np.int64)
TEXT = np.array([10, 11, 12, 13, 14], dtype=np.int64)


def test_each_row_reads_on_where_the_one_before_ended() -> None:
    rows = exact_rows(NO_PREFIX, TEXT, batch_size=2, sequence_length=2)
    assert rows.tolist() == [[10, 11], [12, 13]]


def test_a_short_text_begins_again_in_the_middle_of_a_row() -> None:
    rows = exact_rows(NO_PREFIX, TEXT, batch_size=3, sequence_length=4)
    assert rows.tolist() == [[10, 11, 12, 13], [14, 10, 11, 12], [13, 14, 10, 11]]


def test_a_row_may_be_longer_than_the_text() -> None:
    rows = exact_rows(NO_PREFIX, TEXT[:2], batch_size=2, sequence_length=5)
    assert rows.tolist() == [[10, 11, 10, 11, 10], [11, 10, 11, 10, 11]]


def test_the_prefix_begins_each_row_and_counts_towards_its_length() -> None:
    rows = exact_rows(np.array([1, 2]), TEXT, batch_size=3, sequence_length=4)
    assert rows.tolist() == [[1, 2, 10, 11], [1, 2, 12, 13], [1, 2, 14, 10]]


@pytest.mark.parametrize("prefix", [NO_PREFIX, np.array([7], dtype=np.int64)])
def test_rows_are_int64_of_the_shape_asked_for(prefix: np.ndarray) -> None:
    rows = exact_rows(prefix, TEXT.astype(np.int32), batch_size=7, sequence_length=33)
    assert rows.shape == (7, 33)
    assert rows.dtype == "int64"


def test_distinct_rows_are_counted_by_content() -> None:
    assert count_distinct(exact_rows(NO_PREFIX, TEXT, batch_size=4, sequence_length=3)) == 4
    assert count_distinct(exact_rows(NO_PREFIX, TEXT, batch_size=12, sequence_length=3)) == 5
    assert count_distinct(exact_rows(NO_PREFIX, TEXT, batch_size=4, sequence_length=10)) == 1
