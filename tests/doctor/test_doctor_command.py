"""`hfbench doctor` on the machine that the tests run on."""

import subprocess
import sys
from pathlib import Path

import pytest

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest, ModelFile
from hfbench.doctor import collect, doctor
from hfbench.params.schema import load_params

ROOT = Path(__file__).resolve().parent.parent.parent
PARAMS = ROOT / "params.yaml"


def _manifest(results: Path, name: str, weights_bytes: int) -> None:
    files = (
        ModelFile("model.safetensors", weights_bytes, "0" * 64),
        ModelFile("tokenizer.json", 10**15, "1" * 64),  # not loaded onto a device
    )
    manifest = Manifest(2, name, {}, {}, "LlamaForCausalLM", "llama", 600, 128, files)
    manifest.save(results / "models" / f"{name}.json")


def test_machine_is_examined_without_torch_and_whatever_is_found_is_no_failure() -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hfbench.doctor import doctor\n"
        f"status = doctor(Path({str(PARAMS)!r}), Path('results'))\n"
        "assert not {'torch', 'transformers', 'polars'} & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (process.returncode, process.stderr) == (0, "")
    assert "device: auto means" in process.stdout
    assert "swap" in process.stdout
    assert "free." in process.stdout


def test_readings_of_this_machine(tmp_path: Path) -> None:
    readings = collect(load_params(PARAMS), tmp_path)
    assert 1 <= readings.processor.usable_cores <= 10_000
    assert 0 <= (readings.processor.busy_percent or 0) <= 100
    assert 10**6 < readings.memory.available_bytes <= readings.memory.total_bytes
    assert all(disk.path.is_dir() and disk.free_bytes >= 0 for disk in readings.disks)
    assert str(readings.torch_version).startswith("2.")
    assert readings.plan.model_bytes == {}


def test_size_of_a_model_is_that_of_its_weights(tmp_path: Path) -> None:
    (name,) = load_params(PARAMS).sweep.model
    _manifest(tmp_path, name, 270_000_000)
    _manifest(tmp_path, "not-in-the-sweep", 10**15)
    assert collect(load_params(PARAMS), tmp_path).plan.model_bytes == {name: 270_000_000}


def test_manifest_that_cannot_be_read_is_as_good_as_none(tmp_path: Path) -> None:
    (name,) = load_params(PARAMS).sweep.model
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{name}.json").write_text("{")
    assert collect(load_params(PARAMS), tmp_path).plan.model_bytes == {}


def test_model_that_does_not_fit_is_a_warning_and_a_failure_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = load_params(PARAMS).sweep.model
    _manifest(tmp_path, name, 10**15)
    assert doctor(PARAMS, tmp_path) == 0
    assert doctor(PARAMS, tmp_path, strict=True) == 1
    assert f"the weights of {name} take 1000000.0 GB: it does not fit" in " ".join(capsys.readouterr().out.split())


def test_params_that_are_missing_are_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        doctor(tmp_path / "params.yaml", tmp_path)
