"""`hfbench import` as a person runs it, and what it says of files that it cannot take."""

import argparse
import json
from pathlib import Path

import pytest

from hfbench.commands import import_results
from hfbench.core.errors import UserError
from hfbench.exchange.import_results import import_benchmark_v2
from tests.exchange.benchmark_v2_files import entry, measurements, metadata, write

GENERATE = [(1.25, [[0.5, 0.6, 0.7, 1.1, 1.101]])] * 2


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not valid JSON"),
        ("[]", "it has no entries"),
        ("{}", "it has no entries"),
        ('{"a": 1}', "an entry has not all of config, measurements, metadata"),
        ('{"configuration": {"round": 1}}', "an entry has not all of"),
        (
            json.dumps({"a": entry(measurements(GENERATE, 4), config={"batch_size": 1})}),
            "sequence_length: Field required",
        ),
        (
            json.dumps({"a": entry({**measurements(GENERATE, 4), "e2e_latency": [1.0]})}),
            "has 2 values, and e2e_latency 1",
        ),
        (
            json.dumps({"a": entry(measurements([(1.0, [[0.5, 0.6]])], 4))}),
            "1 lists of [2] timestamps, and 1 of 4 were",
        ),
        (json.dumps({"a": entry(measurements(GENERATE, 4), metadata=metadata(hfbench={}))}), "Field required"),
    ],
)
def test_a_file_of_another_layout_gets_a_sentence(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        import_benchmark_v2([path], tmp_path / "side")
    assert part in str(raised.value)
    assert str(path) in str(raised.value)
    assert not (tmp_path / "side").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run.json", entry(measurements(GENERATE, 4)))
    parser = argparse.ArgumentParser()
    import_results.add_arguments(parser)
    import_results.run(parser.parse_args(["benchmark-v2", "run.json"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "results/imported/run: 1 configuration, 1 round in all"
    assert lines[-1].endswith("hfbench compare results/imported/run workspace --across-environments")
    assert (tmp_path / "results/imported/run/tables/samples.parquet").exists()
