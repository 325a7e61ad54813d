"""What a model's inputs stage does: from a manifest, workloads and a prompt, tokenized once, to a folder of files."""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from hfbench.core.errors import UserError, say
from hfbench.core.files import atomic_path
from hfbench.core.point import UNIFORM
from hfbench.core.record import UNAVAILABLE, Manifest
from hfbench.model.cache import one_line
from hfbench.model.folder import tokenizer_files
from hfbench.model.manifest import materialise
from hfbench.params.sections import LogNormalLengths, RequestLengths, Shape, Workloads


@dataclass(frozen=True)
class PromptText:
    """A text; `file_name` has no folder in it, because equal inputs must be equal bytes on every machine."""

    text: str
    file_name: str
    sha256: str


def read_prompt(path: Path) -> PromptText:
    """Read a prompt, line ends as they are. Raises `UserError` where it is missing, empty or not UTF-8."""
    remedy = "Set prompt in params.yaml to a UTF-8 text file"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"the prompt {path} does not exist. {remedy}.") from None
    except IsADirectoryError:
        raise UserError(f"the prompt {path} is a folder. {remedy}.") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt {path} is not UTF-8: {error.reason} at byte {error.start}. {remedy}.") from None
    if not text.strip():
        raise UserError(f"the prompt {path} is empty. {remedy} with some words in it.")
    return PromptText(text=text, file_name=path.name, sha256=hashlib.sha256(content).hexdigest())


def must_fold(ids: NDArray[np.int64], manifest: Manifest) -> bool:
    """Return whether some id lies outside the model's vocabulary and must be taken modulo its size.

    That is sound where the weights are random: the architecture is measured there, and tokens mean nothing. Anywhere
    else it raises `UserError`: the tokenizer does not belong to the model.
    """
    largest = int(ids.max())
    if largest < manifest.vocab_size:
        return False
    if manifest.source.get("source") != "random":
        raise UserError(
            f"the tokenizer of {manifest.name!r} gives the token id {largest}, and the model's vocab_size is "
            f"{manifest.vocab_size}, so ids up to {manifest.vocab_size - 1}. "
            "Give the model the tokenizer that it was trained with."
        )
    return True


class TokenizerError(UserError):
    """A model has no tokenizer that can be loaded here, now."""


_ADDED_PADDING = "[PAD]"


def load_tokenizer(manifest: Manifest, folder: Path) -> Any:
    """Return the tokenizer in `folder`, from local files only. Raises `TokenizerError` where it holds none that loads.

    `AutoTokenizer` rather than the class that its files name: it is what a user of the model calls, and it corrects the
    classes that some repositories name wrongly. Importing it imports torch (transformers 5.22), which takes about a
    second once for each model.
    """
    from transformers import AutoTokenizer

    trust_remote_code = bool(manifest.source.get("trust_remote_code", False))
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises plain Exception, remote code anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise TokenizerError(
            f"no tokenizer could be loaded for the model {manifest.name!r} ({reason}). "
            "Expected its files, such as tokenizer.json, beside the model's config.json; one with code of its own "
            "needs trust_remote_code: true in the model's entry in params.yaml."
        ) from error


def set_padding(tokenizer: Any, vocab_size: int) -> str:
    """Give the tokenizer a padding token, and return where it comes from.

    `eos`: EOS, as is usual for causal language models. `tokenizer`: it has no EOS, and a padding token of its own.
    `added`: it has neither, and the model's `vocab_size` leaves room for a new one. `reused`: it leaves none, and UNK,
    BOS or the first token must do; rows hold no padding, so the choice changes no result.
    """
    if tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
        return "eos"
    if tokenizer.pad_token is not None:
        return "tokenizer"
    ids = tokenizer.get_vocab()
    if ids.get(_ADDED_PADDING, max(ids.values()) + 1) < vocab_size:
        tokenizer.add_special_tokens({"pad_token": _ADDED_PADDING})
        return "added"
    tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    return "reused"


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before a text, and the text's own, whatever its length.

    Ids that it puts after a text, such as EOS, are left out: the model is to read on. Raises `UserError` where the text
    gives no tokens, or special tokens stand inside it.
    """
    # verbose: the text is cut into rows later, so a warning that it is too long for the model would mislead.
    text_ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    with_special: list[int] = tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
    if not text_ids:
        raise UserError("the tokenizer finds no tokens in the prompt. Set prompt in params.yaml to another text file.")
    for start in range(len(with_special) - len(text_ids) + 1):
        if with_special[start : start + len(text_ids)] == text_ids:
            return with_special[:start], text_ids
    raise UserError(
        "the tokenizer changes the prompt's own tokens where it adds special ones, and hfbench expects them before and "
        "after the text only. Use a model with another tokenizer."
    )


def tokenizer_sha256(manifest: Manifest) -> str:
    """Return the sha256 over the tokenizer's files as the manifest lists them: each name, in order, and its sha256."""
    files = {file.path: file.sha256 for file in manifest.files}
    # A manifest lists code, and the files that only code reads, where the code is trusted; nothing more is to be asked.
    code = [name for name in files if name.endswith(".py")]
    names = sorted({*tokenizer_files(files, trust_remote_code=True), *code})
    return hashlib.sha256("".join(f"{name}\0{files[name]}\n" for name in names).encode()).hexdigest()


@dataclass(frozen=True)
class TokenizedPrompt:
    """int64 ids, all smaller than the model's `vocab_size`: `prefix_ids` stand before each text, such as BOS.

    Ids in `metadata` lie in the same vocabulary; `eos_token_id` is the empty string where there is none.
    """

    prefix_ids: NDArray[np.int64]
    text_ids: NDArray[np.int64]
    metadata: dict[str, str]


def tokenize_prompt(manifest: Manifest, model_folder: Path, prompt: PromptText) -> TokenizedPrompt:
    """Load the model's tokenizer and encode the prompt.

    Raises `UserError` on a tokenizer that does not load, that finds no tokens in the prompt, or whose ids lie outside
    the model's vocabulary.
    """
    tokenizer = load_tokenizer(manifest, model_folder)
    tokenizer_vocab_size = len(tokenizer)
    prefix_ids, text_ids = (np.array(ids, dtype=np.int64) for ids in encode(tokenizer, prompt.text))
    pad_token_source = set_padding(tokenizer, manifest.vocab_size)
    eos_token_id, pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    special_ids = [token_id for token_id in (eos_token_id, pad_token_id) if token_id is not None]
    folded = must_fold(np.concatenate([prefix_ids, text_ids, np.array(special_ids, dtype=np.int64)]), manifest)
    return TokenizedPrompt(
        # Where nothing is folded, all ids are smaller than vocab_size and the modulo changes none.
        prefix_ids=prefix_ids % manifest.vocab_size,
        text_ids=text_ids % manifest.vocab_size,
        metadata={
            "prompt_file": prompt.file_name,
            "prompt_sha256": prompt.sha256,
            "prompt_tokens": str(len(text_ids)),
            "prefix_tokens": str(len(prefix_ids)),
            "tokenizer_class": type(tokenizer).__name__,
            "tokenizer_sha256": tokenizer_sha256(manifest),
            "tokenizer_vocab_size": str(tokenizer_vocab_size),
            "eos_token_id": "" if eos_token_id is None else str(eos_token_id % manifest.vocab_size),
            "pad_token_id": str(pad_token_id % manifest.vocab_size),
            "pad_token": str(tokenizer.pad_token),
            "pad_token_source": pad_token_source,
            "folded": "true" if folded else "false",
        },
    )


def prepare_inputs(manifest: Manifest, workloads: Workloads, prompt_path: Path, folder: Path) -> None:
    """Write one inputs file for each shape into `folder`; none where one of them cannot be made.

    A file's bytes depend on its own shape and lengths, the prompt and the model alone, so that another shape changes no
    other file. Raises `UserError` on too few positions, on a prompt or tokenizer of no use, on token ids outside the
    model's vocabulary, and on rows too short to hold text. Where the model, or its tokenizer, cannot be had, the files
    hold no tensors and say why.
    """
    shapes = workloads.shapes
    if not shapes:  # no point is of this model
        folder.mkdir(parents=True, exist_ok=True)
        return
    prompt = read_prompt(prompt_path)
    check_positions(manifest, shapes)
    try:
        if manifest.unavailable is not None:
            raise TokenizerError(manifest.unavailable)
        tokenized = tokenize_prompt(manifest, materialise(manifest), prompt)
    except TokenizerError as error:
        say(f"hfbench: no inputs for {manifest.name}: {error}")
        for shape in shapes:
            _write_content(folder / shape.file_name, {}, {UNAVAILABLE: str(error)})
        return
    prefix_tokens = len(tokenized.prefix_ids)
    for shape in shapes:
        _check_room_for_text(manifest, shape, prefix_tokens)
    requests = [requests_of(shape, workloads.request_lengths, prefix_tokens, manifest.name) for shape in shapes]
    for shape, unequal in zip(shapes, requests, strict=True):
        _write(folder / shape.file_name, shape, unequal, tokenized)


def check_positions(manifest: Manifest, shapes: Iterable[Shape]) -> None:
    """Raise `UserError` where a prompt, or a prompt and its new tokens, needs more positions than the model has."""
    limit = manifest.max_position_embeddings
    if limit is None:
        return
    for shape in shapes:
        parts = {"context_depth": shape.context_depth, "sequence_length": shape.sequence_length}
        if shape.row_tokens <= limit:
            parts["max_new_tokens"] = shape.max_new_tokens
        if sum(parts.values()) > limit:
            named = [f"{name} is {value}" for name, value in parts.items() if value]
            together = f", together {sum(parts.values())} tokens," if len(named) > 1 else ","
            raise UserError(
                f"{' and '.join(named)}{together} and the model {manifest.name!r} has {limit} positions "
                "(max_position_embeddings or max_seq_len). Ask for less, new tokens included, or choose another model."
            )


def _check_room_for_text(manifest: Manifest, shape: Shape, prefix_tokens: int) -> None:
    if shape.row_tokens <= prefix_tokens:
        after = f" after a context_depth of {shape.context_depth}" if shape.context_depth else ""
        raise UserError(
            f"sequence_length is {shape.sequence_length}{after}, and the tokenizer of {manifest.name!r} begins each "
            f"row with {prefix_tokens} special token(s), which leaves no room for text. Ask for at least "
            f"{prefix_tokens + 1 - shape.context_depth}."
        )


@dataclass(frozen=True)
class Requests:
    """The prompt and new tokens of each request, in the order in which they are handed over.

    Their texts begin with the same `shared_prefix_tokens`.
    """

    prompt_tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]
    shared_prefix_tokens: int = 0


def requests_of(shape: Shape, lengths: Mapping[str, RequestLengths], prefix_tokens: int, model: str) -> Requests | None:
    """Return the requests of a shape, the longest with its prompt and new tokens, or None where all are alike.

    `lengths` is the section `request_lengths` of the params, which has the shape's entry; `prefix_tokens` is what the
    tokenizer puts before each text, and each prompt has at least one more. Raises `UserError` where a listed one has
    not.
    """
    if shape.request_lengths == UNIFORM:
        return None
    entry = lengths[shape.request_lengths]
    if isinstance(entry, LogNormalLengths):
        shared = entry.shared_prefix_tokens
        if shape.sequence_length <= prefix_tokens + shared:
            raise UserError(
                f"request_lengths.{shape.request_lengths} has {shared} shared_prefix_tokens, and the longest prompt is "
                f"sequence_length, {shape.sequence_length}: that leaves no room for what differs. Ask for fewer."
            )
        return draw(entry, shape.sequence_length, shape.max_new_tokens, prefix_tokens + shared + 1)
    shortest = min(entry.prompt_tokens)
    if shortest <= prefix_tokens + entry.shared_prefix_tokens:
        raise UserError(
            f"request_lengths.{shape.request_lengths} has a prompt of {shortest} token(s), and the tokenizer of "
            f"{model!r} begins each row with {prefix_tokens} special token(s), which leaves no room for text"
            f"{f' after {entry.shared_prefix_tokens} shared ones' * (entry.shared_prefix_tokens > 0)}. "
            f"Ask for at least {prefix_tokens + entry.shared_prefix_tokens + 1}."
        )
    return Requests(tuple(entry.prompt_tokens), tuple(entry.new_tokens), entry.shared_prefix_tokens)


def draw(entry: LogNormalLengths, longest_prompt: int, most_new_tokens: int, shortest_prompt: int) -> Requests:
    """Return lengths drawn from the log-normal distribution with mean 0 and `sigma` of the logarithm.

    They are scaled so that the longest is the one asked for, and rounded. Prompts are drawn first, then new tokens,
    from Python's `random.Random(seed)`, which gives the same numbers everywhere.
    """
    source = random.Random(entry.seed)
    prompts, new_tokens = (
        [source.lognormvariate(0, entry.sigma) for _ in range(entry.requests)] for _ in ("prompts", "new tokens")
    )
    lengths = _scaled(prompts, longest_prompt, shortest_prompt), _scaled(new_tokens, most_new_tokens, 1)
    return Requests(*lengths, entry.shared_prefix_tokens)


def _scaled(draws: list[float], longest: int, shortest: int) -> tuple[int, ...]:
    largest = max(draws)
    return tuple(max(shortest, round(value / largest * longest)) for value in draws)


def token_rows(
    prefix_ids: NDArray[np.int64], text_ids: NDArray[np.int64], lengths: Sequence[int], pad_token_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return int64 token ids and attention mask of shape `(len(lengths), max(lengths))`, padded on the left.

    Each row has as many tokens as `lengths` says, at least one more than `prefix_ids`: these (what the tokenizer puts
    before a text, such as BOS) and then text. Row 0 reads the text from its beginning and row i reads on where row
    i - 1 ended; a text, which must not be empty, begins again where it ends. Rows differ on purpose: identical rows
    would send every token of a mixture of experts to the same experts and be shared whole by a prefix cache, and so
    flatter both. The mask is 0 for padding.
    """
    longest, read = max(lengths), 0
    rows = np.full((len(lengths), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(rows)
    for row, length in enumerate(lengths):
        text = length - len(prefix_ids)
        positions = np.arange(read, read + text) % len(text_ids)
        rows[row, longest - length :] = np.concatenate([prefix_ids, text_ids[positions]])
        mask[row, longest - length :] = 1
        read += text
    return rows, mask


def _write(path: Path, shape: Shape, requests: Requests | None, tokenized: TokenizedPrompt) -> None:
    """Write `input_ids` and `attention_mask` as safetensors, for requests the lengths of each beside them."""
    lengths = requests.prompt_tokens if requests else [shape.row_tokens] * shape.batch_size
    pad_token_id = int(tokenized.metadata["pad_token_id"])
    shared = requests.shared_prefix_tokens if requests else 0
    begin = np.concatenate([tokenized.prefix_ids, np.resize(tokenized.text_ids, shared)])
    text_ids = np.roll(tokenized.text_ids, -shared)  # each goes on behind what they share
    rows, mask = token_rows(begin, text_ids, lengths, pad_token_id)
    tensors = {"attention_mask": mask, "input_ids": rows}
    metadata = {
        **tokenized.metadata,
        "batch_size": str(shape.batch_size),
        "sequence_length": str(shape.sequence_length),
        "context_depth": str(shape.context_depth),
        "distinct_rows": str(len(np.unique(rows, axis=0))),  # a short text makes rows of a large batch repeat
    }
    if requests:
        per_request = {"prompt_tokens": requests.prompt_tokens, "new_tokens": requests.new_tokens}
        tensors |= {name: np.array(values, dtype=np.int64) for name, values in per_request.items()}
        metadata |= {
            "requests": str(len(rows)),
            "shared_prefix_tokens": str(shared),
            "total_prompt_tokens": str(sum(requests.prompt_tokens)),
            "total_new_tokens": str(sum(requests.new_tokens)),
        }
    _write_content(path, tensors, metadata)


def _write_content(path: Path, tensors: dict[str, NDArray[np.int64]], metadata: dict[str, str]) -> None:
    content = with_canonical_header(save(tensors, metadata=metadata))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


# https://huggingface.co/docs/safetensors: 8 bytes hold the header's size, then JSON padded with spaces, then the data.
_SIZE_BYTES = 8
_ALIGNMENT_BYTES = 8


def with_canonical_header(content: bytes) -> bytes:
    """Return the bytes of a safetensors file with its header sorted, the same on every run and machine.

    DVC knows the file by its hash, and safetensors keeps metadata in a hash map, whose order changes from call to call.
    """
    data_start = _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little")
    header = json.loads(content[_SIZE_BYTES:data_start])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_SIZE_BYTES, "little") + text + content[data_start:]
