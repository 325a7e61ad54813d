"""Results of transformers' benchmark_v2 as a folder of tables that `hfbench compare` reads."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfbench.exchange.benchmark_v2_file import Entry, read_entries
from hfbench.exchange.benchmark_v2_layout import OWN_AXES, attention_of, compile_mode_of
from hfbench.exchange.benchmark_v2_notes import notes
from hfbench.exchange.benchmark_v2_origin import environment, params
from hfbench.exchange.benchmark_v2_prompt import prompt_tokens
from hfbench.exchange.benchmark_v2_times import foreign_samples, step_seconds
from hfbench.foundation.configuration import USUAL, Configuration
from hfbench.foundation.errors import UserError
from hfbench.foundation.files import write_json
from hfbench.foundation.records import FAILED, OK
from hfbench.tables.foreign import ForeignRound, ForeignSample, foreign_tables

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
