"""The configuration files of transformers' benchmark_v2 as `configurations:` of params.yaml."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hfbench.exchange.benchmark_v2_config_file import Config, config_contents
from hfbench.exchange.benchmark_v2_layout import (
    OWN_AXES,
    PAGED,
    attention_of,
    compile_mode_of,
    compile_params_of,
)
from hfbench.foundation.configuration import AXES
from hfbench.foundation.errors import UserError
from hfbench.foundation.params import load_params
from hfbench.foundation.settings import CompileParams
from hfbench.foundation.sweep import Listed
from hfbench.foundation.wording import sentence
from hfbench.params_file import rewrite

# A sentence about one of these axes is to name the key of the file.
_KEYS = {"compile_mode": "compile_kwargs.mode"}


@dataclass(frozen=True)
class ImportedConfigs:
    """Entries for `configurations:`, what `compile:` must hold for them (None: nothing compiles), and what to know."""

    entries: tuple[dict[str, Any], ...]
    compile: dict[str, Any] | None
    notes: tuple[str, ...]


def import_configs(path: Path, params: Path, model: str | None = None) -> ImportedConfigs:
    """Have params.yaml measure the configurations of a file and nothing else, with `model`, or those of its sweep.

    Raises `UserError`, and writes nothing, where `read_configs` does, or params.yaml would not be right.
    """
    before = load_params(params)
    imported = read_configs(path, before.sweep.model if model is None else [model])
    values: dict[str, Any] = {"sweep.attn_implementation": [], "configurations": list(imported.entries)}
    if model is not None:
        values["sweep.model"] = [model]
    notes = imported.notes
    for key, value in (imported.compile or {}).items():
        if getattr(before.compile, key) != value:
            values[f"compile.{key}"] = value
            notes = (*notes, f"compile.{key} is {json.dumps(value)} now, as the file asks.")
    rewrite(params, values)
    return replace(imported, notes=notes)


def read_configs(path: Path, models: Sequence[str]) -> ImportedConfigs:
    """Return the configurations of a file, each for each of the models.

    Raises `UserError`, naming entry and key, where hfbench cannot measure one as it stands there, and where two that
    compile differ in what `compile:` can hold once.
    """
    read: dict[tuple[tuple[str, Any], ...], str] = {}
    compiled: dict[str, dict[str, Any]] = {}
    notes = []
    given = config_contents(path)
    for where, content, exported in given:
        config = _checked(Config, content, path, where).model_dump()
        axes = _axes(config, exported, path, where)
        twin = read.setdefault(tuple(axes.items()), where)
        if twin != where:
            notes.append(f"{where} is {twin} once more, and is measured once.")
        if axes["compile_mode"] != "off":
            asked = compile_params_of(config)
            _checked(CompileParams, asked, path, f"{where}, compile_kwargs")
            compiled[where] = asked
    if any({"warmup_iterations", "measurement_iterations"} & content.keys() for _, content, _ in given):
        notes.append("How many iterations there are stays with sampling: in params.yaml.")
    entries = tuple({"model": model, **dict(axes)} for model in models for axes in read)
    return ImportedConfigs(entries, _agreed(compiled, path), tuple(notes))


def _axes(config: Mapping[str, Any], exported: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Return the axes but round and model, checked as params.yaml is."""
    for key in config.keys() - Config.model_fields.keys():
        if config[key] is not None:
            raise UserError(f"{path}: {where}: hfbench has nothing for {key}, which is {config[key]!r}. Remove it.")
    if config["attn_implementation"].startswith(PAGED) and not config["continuous_batching"]:
        raise UserError(
            f"{path}: {where}: attn_implementation is {config['attn_implementation']!r}, which is for continuous "
            "batching, and continuous_batching is false. Change one of them."
        )
    axes = {
        "attn_implementation": attention_of(config),
        # An export may have a mode's options in place of the mode.
        "compile_mode": exported.get("compile_mode", compile_mode_of(config)),
        "use_kernels": config["kernelize"],
        "continuous_batching": config["continuous_batching"],
        "dtype": config["dtype"].rpartition(".")[2],
        "batch_size": config["batch_size"],
        "sequence_length": config["sequence_length"],
        "max_new_tokens": config["num_tokens_to_generate"],
        **{axis: config[axis] for axis in OWN_AXES},
    }
    _checked(Listed, {"model": "any", **axes}, path, where)
    return {axis: axes[axis] for axis in AXES if axis in axes}


def _checked(schema: type[BaseModel], content: Any, path: Path, where: str) -> BaseModel:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        location = tuple(_KEYS.get(str(part), part) for part in detail["loc"])
        raise UserError(sentence(Path(f"{path}: {where}"), {**detail, "loc": location}, schema)) from None


def _agreed(compiled: Mapping[str, dict[str, Any]], path: Path) -> dict[str, Any] | None:
    """Return what all configurations that compile ask of `compile:`."""
    first = next(iter(compiled), None)
    for where, asked in compiled.items():
        for key, value in asked.items():
            if first is not None and value != compiled[first][key]:
                raise UserError(
                    f"{path}: {where} compiles with {key} {value!r} and {first} with {compiled[first][key]!r}, and "
                    "compile: in params.yaml holds for all. Import them apart, from two files."
                )
    return compiled[first] if first is not None else None
