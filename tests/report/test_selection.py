"""What a person chooses of the results: conditions, orders, columns."""

import pytest

from hfbench.core.errors import UserError
from hfbench.report.frames import Results, read_results
from hfbench.report.show import Choice, chosen_view
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

# end-to-end seconds of (attention, batch size); one round each
_SECONDS = {("eager", 2): 2.0, ("sdpa", 2): 1.0, ("eager", 8): 4.0, ("sdpa", 8): 3.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("selection")
    records = [
        ok_record(
            point(attn_implementation=attention, batch_size=batch_size),
            observed([0.5, 0.6], end_to_end=seconds),
            load_seconds=None if (attention, batch_size) == ("sdpa", 2) else seconds / 10,
        )
        for (attention, batch_size), seconds in _SECONDS.items()
    ]
    tables_of(folder / "m", *records, failed_record(point(attn_implementation="flex_attention"), "no")).write(folder)
    return read_results(folder)


def _order(results: Results, **choice: str) -> list[tuple[str, int]]:
    return chosen_view(results, Choice(**choice)).rows.select("attn_implementation", "batch_size").rows()  # type: ignore[arg-type]


def test_a_condition_narrows_rows_warnings_and_failures(results: Results) -> None:
    view = chosen_view(results, Choice('batch_size == 8 and attn_implementation != "flex_attention"'))
    assert view.rows.select("attn_implementation", "batch_size").rows() == [("sdpa", 8), ("eager", 8)]
    assert {warning.configuration["batch_size"] for warning in view.results.warnings} == {8}
    assert view.results.points.height == 2
    assert view.note is not None
    assert view.note.text.startswith("2 of 5 configurations, where batch_size == 8")
    # Of the axes, the batch size no longer varies.
    assert [column.label for column in view.columns][:2] == ["attention", "rounds"]


def test_best_is_the_best_of_what_is_left(results: Results) -> None:
    assert chosen_view(results, Choice()).rows["end_to_end_seconds_best"].to_list() == [True, False, True, False]
    alone = chosen_view(results, Choice('attn_implementation == "eager"'))
    assert alone.rows["end_to_end_seconds_best"].to_list() == [False, False]


def test_rows_are_sorted_by_metric_or_axis_and_those_without_a_value_stand_last(results: Results) -> None:
    assert _order(results, sort="end_to_end_seconds") == [("sdpa", 2), ("eager", 2), ("sdpa", 8), ("eager", 8)]
    assert _order(results, sort="End to end:desc") == [("eager", 8), ("sdpa", 8), ("eager", 2), ("sdpa", 2)]
    assert _order(results, sort="load")[-1] == ("sdpa", 2)
    assert _order(results, sort="load:desc")[-1] == ("sdpa", 2)
    assert [row[0] for row in _order(results, sort="attention")] == ["eager", "eager", "sdpa", "sdpa"]
    view = chosen_view(results, Choice(sort="load:asc"))
    assert len(set(view.sections)) == 1  # no lines between workloads that no longer stand together


def test_columns_are_known_by_full_and_by_displayed_names(results: Results) -> None:
    columns = chosen_view(
        results, Choice(columns=("batch", "attn_implementation", "TTFT", "first_call_seconds"))
    ).columns
    assert [column.name for column in columns] == [
        "batch_size",
        "attn_implementation",
        "time_to_first_token_seconds",
        "first_call_seconds",
    ]


def test_a_row_always_says_what_it_is_of(results: Results) -> None:
    columns = chosen_view(results, Choice(columns=("end-to-end",))).columns
    assert [column.name for column in columns] == ["attn_implementation", "batch_size", "end_to_end_seconds"]


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        (
            Choice(columns=("decode", "speed")),
            ["'speed'", "end_to_end_seconds (end-to-end)", "batch_size (batch)", "dtype"],
        ),
        (Choice(columns=("end_to_ende",)), ["Did you mean end-to-end?"]),
        (Choice(sort="decod"), ["Did you mean decode?"]),
        (Choice(sort="decode:up"), ["Expected :asc or :desc"]),
        (Choice(sort="energy"), ["no configuration has a value of energy_joules_per_token"]),
        (Choice("batch_size == 3"), ["no configuration meets", "batch_size is 2, 8", 'dtype is "bfloat16"']),
        (Choice("round == 1"), ["there is no round"]),
    ],
)
def test_what_is_not_known_gets_a_sentence(results: Results, choice: Choice, parts: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        chosen_view(results, choice)
    assert all(part in str(raised.value) for part in parts), raised.value
