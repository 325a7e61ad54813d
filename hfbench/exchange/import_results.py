"""Results of transformers' benchmark_v2 as a folder of tables that `hfbench compare` reads."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.point import AXES, USUAL, Configuration
from hfbench.core.record import FAILED, OK
from hfbench.exchange.layout import OWN_AXES, TORCH, TRANSFORMERS, attention_of, compile_mode_of
from hfbench.tables.foreign import ForeignRound, ForeignSample, foreign_tables

_ENTRY = ("config", "measurements", "metadata")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Config(_Part):
    """`BenchmarkConfig.to_dict`, in any of its versions; other keys are kept as they are."""

    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    num_tokens_to_generate: int = Field(ge=1)
    attn_implementation: str
    continuous_batching: bool = False
    kernelize: bool = False
    warmup_iterations: int | None = None
    measurement_iterations: int | None = None
    compile_kwargs: dict[str, Any] | None = None
    compile_mode: str | None = None
    sdpa_backend: str | None = None
    dtype: str = "bfloat16"


class Measurements(_Part):
    """`BenchmarkResult.to_dict`, a value each iteration, in seconds; `timestamps` is null in a summarised file."""

    e2e_latency: list[float]
    time_to_first_token: list[float]
    inter_token_latency: list[float | None]
    shape_and_decoded_outputs: list[str] = []
    timestamps: list[list[list[float]]] | None = None

    @model_validator(mode="after")
    def _equally_long(self) -> "Measurements":
        for name in ("time_to_first_token", "inter_token_latency", "timestamps"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.e2e_latency):
                raise ValueError(f"{name} has {len(values)} values, and e2e_latency {len(self.e2e_latency)}")
        return self


class HardwareInfo(_Part):
    """`HardwareInfo.to_dict`; `gpu_memory_total_gb` is in GiB."""

    gpu_name: str | None = None
    gpu_memory_total_gb: float | None = None
    python_version: str | None = None
    torch_version: str | None = None


class Round(_Part):
    """Which of the measurements are of a round, in an export of hfbench; `facts` are columns of its table of points."""

    round: int = Field(ge=1)
    measurements: int = Field(ge=0)
    facts: dict[str, Any]


class Extension(_Part):
    """What an export of hfbench adds to the layout: the axes without the round, the rounds, environment.json."""

    configuration: dict[str, Any]
    rounds: list[Round]
    environment: dict[str, Any]


class Metadata(_Part):
    """`BenchmarkMetadata.to_dict`, and what an export of hfbench adds."""

    model_id: str
    timestamp: str | None = None
    commit_id: str | None = None
    hardware_info: HardwareInfo = HardwareInfo()
    success: bool = True
    hfbench: Extension | None = None


@dataclass(frozen=True)
class Entry:
    """One configuration of a file; the earlier versions have no `timestamps`, not even null."""

    source: Path
    config: Config
    measurements: Measurements
    metadata: Metadata
    has_timestamps_key: bool


def read_entries(path: Path) -> list[Entry]:
    """Return the entries of a file of results (.json), or of lines as they are on the hub (.jsonl).

    Raises `UserError` where the file is missing or of another layout.
    """
    contents = _contents(path)
    if not contents or not all(isinstance(each, dict) and set(_ENTRY) <= each.keys() for each in contents):
        raise _other_layout(path, f"an entry has not all of {', '.join(_ENTRY)}" if contents else "it has no entries")
    return [_entry(path, each) for each in contents]


def _contents(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Name a file that benchmark_v2 wrote.") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise _other_layout(path, "it is no text file") from None
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except ValueError as error:
        raise _other_layout(path, f"it is not valid JSON, {error}") from None
    return list(content.values()) if isinstance(content, dict) else []


def _entry(path: Path, content: dict[str, Any]) -> Entry:
    try:
        return Entry(
            source=path,
            config=Config.model_validate(content["config"]),
            measurements=Measurements.model_validate(content["measurements"]),
            metadata=Metadata.model_validate(content["metadata"]),
            has_timestamps_key="timestamps" in content["measurements"],
        )
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise _other_layout(path, f"{where or error.title}: {detail['msg']}") from None


def _other_layout(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is not in the layout of benchmark_v2: {what}. Expected an object with an entry for each "
        "configuration, each with config, measurements and metadata, as benchmark_v2/run_benchmarks.py of transformers "
        "writes it."
    )


# Words of DEFAULT_PROMPT in benchmark_runner.py. A tokenizer in use makes more tokens of a text than it has words.
_SURE_TOKENS = 320
_SHAPE = re.compile(r"\((\d+), (\d+)\)")


def prompt_tokens(entry: Entry, whole_prompt_tokens: int | None) -> int | None:
    """Return the prompt tokens of each row, None where neither the file nor the person tells.

    Told they are by hfbench's own exports, whose prompts are as long as they say; by earlier versions, whose shape of
    the output of `generate` holds the prompt; and by `whole_prompt_tokens`, the length of the whole text.
    """
    asked = entry.config.sequence_length
    if entry.metadata.hfbench is not None:
        return asked
    told = _told_by_shape(entry)
    if told is not None:
        return told
    if whole_prompt_tokens is not None:
        return min(asked, whole_prompt_tokens)
    return asked if asked <= _SURE_TOKENS else None


def _told_by_shape(entry: Entry) -> int | None:
    for output in entry.measurements.shape_and_decoded_outputs:
        shape = _SHAPE.match(output)
        if shape and int(shape[2]) > entry.config.num_tokens_to_generate:
            return int(shape[2]) - entry.config.num_tokens_to_generate
    return None


# A float64 that was measured is a multiple of no coarser step by chance: most of its bits would have to be zero.
_FINEST_STEP_SECONDS = 2**-24


def foreign_samples(entry: Entry) -> tuple[ForeignSample, ...]:
    """Return the samples of an entry. Raises `UserError` where the timestamps are not those of its tokens."""
    measured = entry.measurements
    return tuple(_sample(entry, index) for index in range(len(measured.e2e_latency)))


def step_seconds(entry: Entry) -> float | None:
    """Return the step in which an entry's token times were kept, None where they are as exact as float64."""
    measured = entry.measurements
    if measured.timestamps is None:
        times: Iterable[float] = measured.time_to_first_token
    else:
        times = (at for iteration in measured.timestamps for stamps in iteration for at in stamps)
    # A float is a whole number over a power of two: the largest such denominator is the step.
    step = 1 / max((at.as_integer_ratio()[1] for at in times), default=2**60)
    return step if step > _FINEST_STEP_SECONDS else None


def _sample(entry: Entry, index: int) -> ForeignSample:
    call_seconds = entry.measurements.e2e_latency[index]
    is_batched = entry.config.continuous_batching
    if entry.measurements.timestamps is not None:
        tokens = _token_seconds(entry, entry.measurements.timestamps[index])
        end = max(stamps[-1] for stamps in tokens) if is_batched else call_seconds
        # A coarse step may put the first token before the start.
        return ForeignSample(end, call_seconds, tokens if min(stamps[0] for stamps in tokens) > 0 else ())
    if is_batched:
        return ForeignSample(None, call_seconds)
    first = entry.measurements.time_to_first_token[index]
    gap = entry.measurements.inter_token_latency[index]
    return ForeignSample(
        end_to_end_seconds=call_seconds,
        call_seconds=call_seconds,
        time_to_first_token_seconds=first if first > 0 else None,
        inter_token_seconds=None if gap is None or gap <= 0 else gap * inter_token_factor(entry),
    )


def inter_token_factor(entry: Entry) -> float:
    """Return what makes `inter_token_latency` of `generate` the mean gap between tokens; see above."""
    tokens = entry.config.num_tokens_to_generate
    divided_by = tokens if entry.has_timestamps_key else tokens + 1
    return divided_by / (tokens - 1) if tokens > 1 else 1.0


def _token_seconds(entry: Entry, iteration: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    tokens, is_batched = entry.config.num_tokens_to_generate, entry.config.continuous_batching
    lists = entry.config.batch_size if is_batched else 1
    lengths = {len(stamps) for stamps in iteration}
    with_end = tokens + 1
    if len(iteration) != lists or not (lengths == {tokens} or (lengths == {with_end} and not is_batched)):
        raise UserError(
            f"{entry.source}: an iteration has {len(iteration)} lists of {sorted(lengths)} timestamps, and {lists} of "
            f"{tokens} were expected for batch size {entry.config.batch_size} and {tokens} new tokens."
        )
    return tuple(tuple(stamps[:tokens]) for stamps in iteration)


_GIB = 2**30
_UNTOLD = "unknown"


def environment(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the content of environment.json: of an export of hfbench its own, else what `hardware_info` tells.

    Raises `UserError` where the entries are of different machines: their numbers cannot stand in one folder.
    """
    found = [_environment(entry) for entry in entries]
    if any(each != found[0] for each in found):
        raise UserError(
            f"{', '.join(dict.fromkeys(str(entry.source) for entry in entries))}: the entries are of different "
            "machines or versions. Import each of them to a folder of its own."
        )
    return found[0]


def params(
    entries: Sequence[Entry], configurations: Sequence[Configuration], files: Sequence[Path], notes: Sequence[str]
) -> dict[str, Any]:
    """Return the content of params.json: the axes' values, the iterations, and `imported`, where it is from."""
    sweep = {axis: list(dict.fromkeys(getattr(each, axis) for each in configurations)) for axis in AXES}
    return {
        "sweep": sweep,
        "sampling": {
            "warmup_iterations": _values(entry.config.warmup_iterations for entry in entries),
            "measurement_iterations": _values(entry.config.measurement_iterations for entry in entries),
        },
        "imported": {
            "format": "benchmark-v2",
            "files": [path.name for path in files],
            "model_ids": _values(entry.metadata.model_id for entry in entries),
            "commit_ids": _values(entry.metadata.commit_id for entry in entries),
            "notes": list(notes),
        },
    }


def _environment(entry: Entry) -> dict[str, Any]:
    if entry.metadata.hfbench is not None:
        return entry.metadata.hfbench.environment
    hardware = entry.metadata.hardware_info
    versions = {TORCH: {"version": hardware.torch_version}, TRANSFORMERS: {"commit": entry.metadata.commit_id}}
    told = {name: package for name, package in versions.items() if any(package.values())}
    return {
        "schema_version": 1,
        "accelerators": _accelerators(hardware),
        "python": {"version": hardware.python_version},
        "packages": {name: {"version": _UNTOLD, **package} for name, package in told.items()},
    }


def _accelerators(hardware: HardwareInfo) -> list[dict[str, Any]]:
    if hardware.gpu_name is None:
        return []
    memory = hardware.gpu_memory_total_gb
    return [{"name": hardware.gpu_name, "memory_bytes": None if memory is None else round(memory * _GIB)}]


def _values(values: Any) -> list[Any]:
    return [value for value in dict.fromkeys(values) if value is not None]


# Keys of a config in some version that are no axis: what they say does not part configurations, or is elsewhere.
_NO_AXES = {"name", "gpu_monitoring", "use_cache", "compilation", "compile_options", "device"}


def notes(entries: Sequence[Entry], lengths: Sequence[int | None]) -> tuple[str, ...]:
    """Return the notes; `lengths` are the prompt tokens of the entries, None for one that was left out.

    Of an export of hfbench there is nothing to say.
    """
    foreign = [
        (entry, length) for entry, length in zip(entries, lengths, strict=True) if entry.metadata.hfbench is None
    ]
    kept = [entry for entry, length in foreign if length is not None]
    found = [
        _left_out([entry for entry, length in foreign if length is None]),
        _relabelled(
            [(entry, length) for entry, length in foreign if length not in (None, entry.config.sequence_length)]
        ),
        _steps(kept),
        _inter_token(kept),
        _requests(kept),
        _unverified(kept),
        _unknown(kept),
        "The dtype is taken to be bfloat16, which benchmark_v2 always loads; its batches are copies of one prompt."
        if kept
        else "",
    ]
    return tuple(note for note in found if note)


def _left_out(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    return (
        f"{_entries(len(entries))} left out, of sequence_length {_listed(entries)}: benchmark_v2 measures its prompt "
        "under any longer length, and the file does not tell how many tokens it had. --prompt-tokens tells it."
    )


def _relabelled(entries: Sequence[tuple[Entry, int | None]]) -> str:
    if not entries:
        return ""
    lengths = ", ".join(str(length) for length in sorted({length for _, length in entries if length}))
    labels = _listed([entry for entry, _ in entries])
    return f"{_entries(len(entries))} of sequence_length {labels} had {lengths} prompt tokens, and stand under that."


def _steps(entries: Sequence[Entry]) -> str:
    steps = [step for entry in entries if (step := step_seconds(entry)) is not None]
    if not steps:
        return ""
    return (
        f"Token times are known to {max(steps) * 1e3:.3g} ms only, since benchmark_v2 kept them in float32; the "
        "end-to-end latency is exact."
    )


def _inter_token(entries: Sequence[Entry]) -> str:
    corrected = [each for each in entries if _is_summarised(each) and not each.config.continuous_batching]
    factors = sorted({inter_token_factor(entry) for entry in corrected if entry.measurements.e2e_latency})
    if not factors or factors == [1.0]:
        return ""
    shown = " to ".join(f"{factor:.4g}" for factor in dict.fromkeys((factors[0], factors[-1])))
    return f"inter_token_latency is multiplied by {shown}: benchmark_v2 divides it by more gaps than there are."


def _requests(entries: Sequence[Entry]) -> str:
    if not any(_is_summarised(each) and each.config.continuous_batching for each in entries):
        return ""
    return (
        "Of continuous batching without timestamps only the length of the call is known: benchmark_v2 mixes the "
        "requests in its other numbers."
    )


def _unverified(entries: Sequence[Entry]) -> str:
    words = ["compiled"] * any(compile_mode_of(entry.config.model_dump()) != "off" for entry in entries)
    words += ["kernelized"] * any(entry.config.kernelize for entry in entries)
    if not words:
        return ""
    return f"That what is labelled {' and '.join(words)} really was so, benchmark_v2 does not verify."


def _unknown(entries: Sequence[Entry]) -> str:
    """Say which keys of the configs are read over: a later version may measure what hfbench has no axis for."""
    extra = (entry.config.model_extra or {} for entry in entries)
    found = {name for each in extra for name, value in each.items() if value and name not in _NO_AXES}
    if not found:
        return ""
    return f"Not known here, and so taken to change nothing: {', '.join(sorted(found))} in the configs."


def _is_summarised(entry: Entry) -> bool:
    return entry.measurements.timestamps is None


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _listed(entries: Sequence[Entry]) -> str:
    return ", ".join(map(str, sorted({entry.config.sequence_length for entry in entries})))


_FAILURE = "benchmark_v2 says that it failed, and not why"


@dataclass(frozen=True)
class Imported:
    """What was made: the folder, how many configurations and rounds it has, and what to know of them."""

    folder: Path
    configurations: int
    rounds: int
    notes: tuple[str, ...]


def import_benchmark_v2(
    files: Sequence[Path], folder: Path, *, model: str | None = None, whole_prompt_tokens: int | None = None
) -> Imported:
    """Write tables/, environment.json and params.json to `folder`; a file is a process, and so a round.

    `model` is the name that the model has here (of its id, unless given); `whole_prompt_tokens` the length of
    benchmark_v2's prompt with its tokenizer. Entries whose prompt's length nobody tells are left out. Raises
    `UserError` where a file is of another layout, or nothing is left.
    """
    entries = [entry for path in files for entry in read_entries(path)]
    lengths = [prompt_tokens(entry, whole_prompt_tokens) for entry in entries]
    kept = [(entry, length) for entry, length in zip(entries, lengths, strict=True) if length is not None]
    if not kept:
        raise UserError(
            f"{', '.join(map(str, files))}: benchmark_v2 measures the same prompt under every sequence_length that is "
            "longer, and no entry tells how many tokens it had. Give its length with this model's tokenizer as "
            "--prompt-tokens (462 with that of SmolLM2)."
        )
    rounds = _rounds(kept, model)
    told = notes(entries, lengths)
    tables = foreign_tables(rounds)
    tables.write(folder / "tables")
    used = [entry for entry, _ in kept]
    write_json(folder / "environment.json", environment(used))
    write_json(folder / "params.json", params(used, [each.configuration for each in rounds], files, told))
    return Imported(folder, tables.configurations.height, len(rounds), told)


def _rounds(kept: Sequence[tuple[Entry, int]], model: str | None) -> list[ForeignRound]:
    """Return the rounds in order, each with the number that its file gives it where that is still free.

    Entries of one process that had the same prompt under several lengths are one round.
    """
    rounds: dict[Configuration, ForeignRound] = {}
    sources: dict[Configuration, Path] = {}
    for entry, length in kept:
        axes = _axes(entry, length, model)
        for number, facts, samples in _parts(entry):
            configuration = Configuration(round=number, **axes)
            while configuration in rounds and sources[configuration] != entry.source:
                configuration = replace(configuration, round=configuration.round + 1)
            before = rounds[configuration].samples if configuration in rounds else ()
            rounds[configuration] = ForeignRound(configuration, facts, before + samples)
            sources[configuration] = entry.source
    return sorted(rounds.values(), key=lambda each: each.configuration.round)


def _parts(entry: Entry) -> list[tuple[int, dict[str, Any], tuple[ForeignSample, ...]]]:
    """Return number, facts and samples of each process: one, but for an export of hfbench."""
    samples = foreign_samples(entry)
    if entry.metadata.hfbench is None:
        status = OK if entry.metadata.success and samples else FAILED
        facts = {
            "status": status,
            "reason": None if status == OK else _FAILURE,
            "device_name": entry.metadata.hardware_info.gpu_name,
            "started_at": entry.metadata.timestamp,
            "clock_resolution_seconds": step_seconds(entry),
        }
        return [(1, facts, samples)]
    parts, start = [], 0
    for each in entry.metadata.hfbench.rounds:
        end = start + each.measurements
        parts.append((each.round, each.facts, samples[start:end]))
        start = end
    return parts


def _axes(entry: Entry, length: int, model: str | None) -> dict[str, Any]:
    """Return the axes without the round."""
    config = entry.config.model_dump()
    exported = entry.metadata.hfbench
    name = _model_name(entry.metadata.model_id) if exported is None else exported.configuration["model"]
    return {
        "model": model or name,
        "attn_implementation": attention_of(config),
        # An export names the mode, also where options stand in its place.
        "compile_mode": compile_mode_of(config) if exported is None else exported.configuration["compile_mode"],
        "use_kernels": entry.config.kernelize,
        "continuous_batching": entry.config.continuous_batching,
        "dtype": entry.config.dtype.rpartition(".")[2],
        "batch_size": entry.config.batch_size,
        "sequence_length": length,
        "max_new_tokens": entry.config.num_tokens_to_generate,
        **{axis: config.get(axis, USUAL[axis]) for axis in OWN_AXES},
    }


def _model_name(model_id: str) -> str:
    """Return a name as params.yaml has them: that of the repository, in lower case."""
    return re.sub(r"[^a-z0-9_]+", "-", model_id.rsplit("/", 1)[-1].lower()).strip("-")
