"""What a model folder must hold, and which of its files are the model: config, weights, tokenizer, own code."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json, write_json
from hfbench.core.record import ModelFile
from hfbench.model.cache import cache_folder, size_text

REMEMBERED_FROM_BYTES = 4_000_000  # reading less takes no longer than looking the hash up
_ANNOUNCED_FROM_BYTES = 2_000_000_000  # some seconds of work


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kernel_builds(folder: Path) -> list[Path]:
    """Return the builds in a kernel's folder, where `kernels.resolver.resolve_local_kernel` looks for one."""
    return sorted({path.parent for place in (".", "*", "build/*") for path in folder.glob(f"{place}/metadata.json")})


def kernel_sha256(folder: Path) -> str:
    """Return the sha256 over the paths and contents of a kernel's builds, and of no other file that is beside them.

    Compiled Python, hidden files such as those of git, and the backups of editors are left out.
    """
    files = sorted({path for build in kernel_builds(folder) for path in _files_below(build, set())})
    lines = "".join(f"{path.relative_to(folder).as_posix()}\0{remembered_sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _files_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the files that Python may load, those of linked folders too, which `Path.rglob` leaves out."""
    if (real := folder.resolve()) in seen:  # a link to a folder that it is in
        return
    seen.add(real)
    for path in folder.iterdir():
        if path.name.startswith((".", "#")) or path.name.endswith("~") or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from _files_below(path, seen)
        elif path.is_file():
            yield path


def remembered_sha256(path: Path) -> str:
    """Return the sha256 of a file, without reading it where its path, size and mtime are those of the last time."""
    real = path.resolve()
    status = real.stat()  # before the reading: a change meanwhile then shows as another mtime next time
    if status.st_size < REMEMBERED_FROM_BYTES:
        return sha256_of(real)
    identity = {"path": str(real), "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    note = cache_folder() / "hashes" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(UserError, AttributeError, OSError):
        remembered = read_json(note)
        if {key: remembered.get(key) for key in identity} == identity:
            return str(remembered["sha256"])
    if status.st_size >= _ANNOUNCED_FROM_BYTES:
        say(f"hashing {path.name} ({size_text(status.st_size)})")
    sha256 = sha256_of(real)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
        write_json(note, {**identity, "sha256": sha256})
    return sha256


CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
# Each file that a tokenizer of transformers 5.22 reads: `vocab_files_names` of its classes, and those of mistral-common
# and tiktoken. One of them must be there.
VOCABULARY_FILES = frozenset(
    {
        "bpe.codes",
        "byte_maps.json",
        "dict.txt",
        "emoji.json",
        "encoder.json",
        "entity_vocab.json",
        "merges.txt",
        "normalizer.json",
        "prophetnet.tokenizer",
        "sentencepiece.bpe.model",
        "sentencepiece.model",
        "source.spm",
        "spiece.model",
        "spm.model",
        "spm_char.model",
        "target.spm",
        "target_vocab.json",
        "tekken.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "vocab-src.json",
        "vocab-tgt.json",
        "vocab.bpe",
        "vocab.json",
        "vocab.txt",
        "word_pronunciation.json",
        "word_shape.json",
    }
)
TOKENIZER_FILES = VOCABULARY_FILES | {
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
}
# Tokenizers that come as code name their files as they like.
_CODE_TOKENIZER_SUFFIXES = (".model", ".tiktoken", ".txt", ".vocab", ".bpe")


def tokenizer_files(names: Iterable[str], trust_remote_code: bool = False) -> list[str]:
    """Return those of `names`, paths within the folder, that the tokenizer reads."""
    return sorted(
        name
        for name in names
        if name in TOKENIZER_FILES
        or (trust_remote_code and "/" not in name and name.endswith(_CODE_TOKENIZER_SUFFIXES))
    )


def check_tokenizer(names: Iterable[str], where: str) -> None:
    """Raise `UserError` where no file among `names` holds a vocabulary."""
    if not VOCABULARY_FILES.intersection(names):
        raise UserError(
            f"{where} has no tokenizer: expected tokenizer.json, or the vocabulary files of another kind. "
            "Save one there with the tokenizer's save_pretrained."
        )


def support_files(names: Collection[str], where: str, trust_remote_code: bool) -> list[str]:
    """Return those of `names` that are the model but not its weights.

    Raises `UserError` where there is no config.json or no tokenizer; `where` says whose files they are.
    """
    if CONFIG not in names:
        raise UserError(f"{where} has no {CONFIG}. Expected a model as transformers' save_pretrained writes it.")
    tokenizer = tokenizer_files(names, trust_remote_code)
    if not trust_remote_code:
        check_tokenizer(tokenizer, where)
    code = [name for name in names if trust_remote_code and name.endswith(".py")]
    return sorted({CONFIG, *({GENERATION_CONFIG} & set(names)), *tokenizer, *code})


def weight_files(names: Collection[str], where: str, open_index: Callable[[], Path]) -> list[str]:
    """Return those of `names` that hold the weights, with the index where there are several.

    As in transformers, model.safetensors goes before an index. Raises `UserError` where there are no safetensors, or
    the index names a file that is not there.
    """
    if WEIGHTS in names:
        return [WEIGHTS]
    if WEIGHTS_INDEX not in names:
        raise UserError(f"{where} has no safetensors weights ({WEIGHTS}){_other_weights(names)}.")
    try:
        shards = sorted({str(name) for name in json.loads(open_index().read_bytes())["weight_map"].values()})
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{where}: {WEIGHTS_INDEX} is no index of weights. Save the model again.") from None
    missing = [name for name in shards if name not in names]
    if missing:
        raise UserError(f"{where}: {WEIGHTS_INDEX} names {missing[0]}, which is not there. Save or fetch it again.")
    return [WEIGHTS_INDEX, *shards]


def _other_weights(names: Collection[str]) -> str:
    for suffix, kind in ((".bin", "PyTorch"), (".pth", "PyTorch"), (".pt", "PyTorch"), (".gguf", "GGUF")):
        found = sorted(name for name in names if name.endswith(suffix) and name != "training_args.bin")
        if found:
            remedy = "Load and convert them with transformers' save_pretrained, and name that folder as a local model"
            return f", only {kind} ones ({found[0]}). {remedy}"
    return ". Save the model with transformers' save_pretrained"


def files_in(folder: Path, trust_remote_code: bool = False) -> set[str]:
    """Return the names of the files in a folder; where its code is trusted, the paths of Python files below it too."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    code = (path.relative_to(folder) for path in folder.rglob("*.py")) if trust_remote_code else ()
    return names | {path.as_posix() for path in code if not any(part.startswith(".") for part in path.parts)}


def describe_files(
    folder: Path, names: Iterable[str], sha256: Callable[[Path], str] = remembered_sha256
) -> tuple[ModelFile, ...]:
    """Return size and sha256 of each named file, in the order of the names."""
    return tuple(ModelFile(name, (folder / name).stat().st_size, sha256(folder / name)) for name in sorted(names))


def has_sizes(folder: Path, files: Iterable[ModelFile]) -> bool:
    """Return whether each file is there with its size; nothing is read."""
    paths = ((folder / file.path, file.size_bytes) for file in files)
    return all(path.is_file() and path.stat().st_size == size_bytes for path, size_bytes in paths)


def to_json(files: Iterable[ModelFile]) -> list[dict[str, Any]]:
    """Return the JSON form that `Manifest` gives its files."""
    return [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in files]


def scan_tokenizer(path: str) -> tuple[ModelFile, ...]:
    """Return the tokenizer's files in a folder, hashed. Raises `UserError` where there are none."""
    folder = existing_folder(path)
    names = tokenizer_files(files_in(folder))
    check_tokenizer(names, path)
    return describe_files(folder, names)


def existing_folder(path: str) -> Path:
    """Return the folder of a path in params.yaml. Raises `UserError` where there is none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"the folder {path} does not exist. Set it in params.yaml to a model's folder as save_pretrained writes it."
        )
    return folder
