"""metrics.json and its keys, also as DVC itself reads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hfbench.core.files import write_json
from hfbench.tables.build import headline, headline_by_point
from tests.tables.hand_records import POINT, failed_record, observed, ok_record, point, tables_of

EAGER = point(attn_implementation="eager")


def test_counts_best_and_points(tmp_path: Path) -> None:
    fast = ok_record(POINT, observed([0.5, 0.6, 0.8, 1.1]), memory={"peak_bytes": 123456789})
    slow = ok_record(EAGER, observed([0.25, 1.0, 2.0, 3.25]))
    tables = tables_of(tmp_path, fast, slow, failed_record(point(compile_mode="default"), "no"))
    assert headline(tables) == {
        "points_ok": 2,
        "points_not_ok": 1,
        "warnings": 2,  # one round each
        "best_decode_tokens_per_second": 10.0,
        "best_end_to_end_seconds": 1.1,
        "best_time_to_first_token_seconds": 0.25,
    }
    assert headline_by_point(tables) == {
        "tiny sdpa b2 s10 n4": {
            "decode_tokens_per_second": 10.0,
            "end_to_end_seconds": 1.1,
            "time_to_first_token_seconds": 0.5,
            "peak_memory_bytes": 123500000,
        },
        "tiny eager b2 s10 n4": {
            "decode_tokens_per_second": 2.0,
            "end_to_end_seconds": 3.25,
            "time_to_first_token_seconds": 0.25,
        },
    }


def test_nothing_measured_has_no_numbers(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, failed_record(POINT, "no"))
    assert headline(tables) == {"points_ok": 0, "points_not_ok": 1, "warnings": 0}
    assert headline_by_point(tables) == {}


def test_what_computes_something_else_is_no_best(tmp_path: Path) -> None:
    right, wrong = {"output": {"prompt_nll": 2.0}}, {"output": {"prompt_nll": 2.1}}
    fast = ok_record(POINT, observed([0.1, 0.2, 0.3, 0.4]), **wrong)
    slow = ok_record(EAGER, observed([0.25, 1.0, 2.0, 3.25]), **right)
    tables = tables_of(tmp_path, fast, slow)
    assert headline(tables)["best_end_to_end_seconds"] == 3.25
    assert headline_by_point(tables)["tiny sdpa b2 s10 n4"]["end_to_end_seconds"] == 0.4


def test_a_median_is_that_of_the_rounds(tmp_path: Path) -> None:
    # Round medians 1.0, 2.0, 9.0; of all five samples together the median would be 1.0.
    seconds = {1: (1.0, 1.0, 1.0), 2: (2.0,), 3: (9.0,)}
    records = [
        ok_record(point(round=number), *(observed([0.5, 0.6], end_to_end=each) for each in values))
        for number, values in seconds.items()
    ]
    assert headline(tables_of(tmp_path, *records))["best_end_to_end_seconds"] == 2.0


def test_dvc_reads_the_files(tmp_path: Path) -> None:
    hub_kernel = point(attn_implementation="kernels-community/flash-attn3@v1.0")
    tables = tables_of(tmp_path / "m", ok_record(hub_kernel, observed([0.5, 0.6, 0.8, 1.1])))
    contents = {"metrics.json": headline(tables), "metrics_by_point.json": headline_by_point(tables)}
    _dvc(tmp_path, "init", "--quiet", "--no-scm")
    for name, content in contents.items():
        write_json(tmp_path / name, content)
        shown = json.loads(_dvc(tmp_path, "metrics", "show", "--json", name))
        assert shown[""]["data"][name]["data"] == content
    assert not any(set("./:@") & set(key) for key in contents["metrics_by_point.json"])


def test_thirty_points_are_readable_in_dvc(tmp_path: Path) -> None:
    """Where dvc.yaml calls only metrics.json metrics, `exp show` stays narrow, and the points are a target away."""
    _dvc(tmp_path, "init", "--quiet", git=True)
    stage = {"cmd": "true", "metrics": [{"metrics.json": {"cache": False}}]}
    by_point: dict[str, Any] = {"metrics_by_point.json": {"cache": False}}
    write_json(tmp_path / "dvc.yaml", {"stages": {"aggregate": {**stage, "outs": [by_point]}}})
    for factor in (1, 2):
        times = observed([factor * at for at in (0.5, 0.6, 0.8, 1.1)])
        tables = tables_of(
            tmp_path / f"m{factor}", *(ok_record(point(batch_size=size), times) for size in range(1, 31))
        )
        write_json(tmp_path / "metrics.json", headline(tables))
        write_json(tmp_path / "metrics_by_point.json", headline_by_point(tables))
        _git(tmp_path, "add", "--all")
        _git(tmp_path, "commit", "--quiet", "--message", f"factor {factor}")
    header = _dvc(tmp_path, "exp", "show", "--csv").splitlines()[0].split(",")
    assert sum(name in headline(tables) for name in header) == 6
    assert not any("b30" in name for name in header)
    assert max(map(len, _dvc(tmp_path, "metrics", "diff", "HEAD~1").splitlines())) <= 100
    diff = _dvc(tmp_path, "metrics", "diff", "HEAD~1", "--no-path", "--targets", "metrics_by_point.json").splitlines()
    assert len(diff) == 1 + 3 * 30
    assert max(map(len, diff)) <= 100


def _git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.email=tests@example.org", "-c", "user.name=tests"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)


def _dvc(folder: Path, *words: str, git: bool = False) -> str:
    if git:
        _git(folder, "init", "--quiet")
    dvc = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(dvc, cwd=folder, check=True, capture_output=True, text=True).stdout
