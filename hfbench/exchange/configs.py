"""Configurations in the layout of transformers' benchmark_v2: written, and read as `configurations:` of params.yaml.

Source: huggingface/transformers, benchmark_v2/framework/benchmark_config.py. A file of results holds an object with an
entry for each configuration under `BenchmarkConfig.hash`; the entry's `config` is `BenchmarkConfig.to_dict`. What
`--config-file` takes is one configuration (.json), or one a line (.jsonl).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES, USUAL
from hfbench.params.levels import rewrite
from hfbench.params.schema import load_params, sentence
from hfbench.params.sections import CompileParams, Count, Listed

# Keys beyond the layout, which benchmark_v2 ignores: it has no word for these values.
EXTENSION = "hfbench"
_DTYPE = "bfloat16"  # the only one that benchmark_v2 loads
_PAGED = "paged|"  # what continuous batching calls an attention implementation
_SDPA = "sdpa"
_DEFAULT_COMPILE_MODE = "reduce-overhead"  # transformers.CompileConfig's, where only other arguments are given
# The axes that are keys of hfbench's own there; the others are in the layout, if under other names or in parts.
_IN_PARTS = {"compile_mode", "use_kernels", "continuous_batching", "dtype"}
_OWN_AXES = tuple(axis for axis in USUAL if axis not in _IN_PARTS)


def benchmark_config(
    axes: Mapping[str, Any],
    warmup_iterations: int,
    measurement_iterations: int,
    *,
    gpu_monitoring: bool,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return `BenchmarkConfig.to_dict()` of a configuration, its keys in their order, `name` as `infer_name()` has it.

    `compile_kwargs` are those that were used, where a record tells; else those of the mode alone.

    An SDPA backend and a dtype other than bfloat16 are keys of their own, as the first was in earlier versions; so are
    the unusual values of axes that the layout does not know.
    """
    attention, _, backend = axes["attn_implementation"].partition(":")
    if attention != _SDPA:
        attention, backend = axes["attn_implementation"], ""
    mode = axes["compile_mode"]
    if not compile_kwargs and mode != "off":  # `CompileConfig.to_dict()` as hfbench makes one
        compile_kwargs = {"fullgraph": False, "dynamic": None, "backend": "inductor", "mode": mode, "options": None}
    name = (
        f"w{warmup_iterations}_i{measurement_iterations}",
        "monitored" if gpu_monitoring else "unmonitored",
        f"b{axes['batch_size']}_s{axes['sequence_length']}_n{axes['max_new_tokens']}",
        attention + (f"_{backend}" if backend else ""),
        f"compiled_{compile_kwargs['mode']}" if compile_kwargs else "uncompiled",
        "kernelized" if axes["use_kernels"] else "unkernelized",
        "cb" if axes["continuous_batching"] else "generate",
    )
    return {
        "name": "-".join(name),
        "warmup_iterations": warmup_iterations,
        "measurement_iterations": measurement_iterations,
        "gpu_monitoring": gpu_monitoring,
        "continuous_batching": axes["continuous_batching"],
        "batch_size": axes["batch_size"],
        "sequence_length": axes["sequence_length"],
        "num_tokens_to_generate": axes["max_new_tokens"],
        "attn_implementation": attention,
        "compile_kwargs": compile_kwargs or None,
        "kernelize": axes["use_kernels"],
        **({"sdpa_backend": backend} if backend else {}),
        **({"dtype": axes["dtype"]} if axes["dtype"] != _DTYPE else {}),
        **{axis: axes[axis] for axis in _OWN_AXES if axes[axis] != USUAL[axis]},
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Return `BenchmarkConfig.hash`, under which an entry stands."""
    return hashlib.sha256(json.dumps(config).encode()).hexdigest()


class Config(BaseModel):
    """`BenchmarkConfig` with the defaults of its `from_dict`, in any of its versions; other keys are kept."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    name: str | None = None
    # Of no meaning here: benchmark_v2 takes these three from its command line, and hfbench from `sampling:`.
    warmup_iterations: int | None = None
    measurement_iterations: int | None = None
    gpu_monitoring: bool | None = None
    continuous_batching: bool = False
    batch_size: Count = 1
    sequence_length: Count = 128
    num_tokens_to_generate: Count = 128
    attn_implementation: str = "eager"
    compile_kwargs: dict[str, Any] | None = None
    kernelize: bool = False
    sdpa_backend: str | None = None
    compile_mode: str | None = None
    compile_options: dict[str, Any] | None = None
    dtype: str = _DTYPE


def config_contents(path: Path) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Return the name of each configuration in messages, its content, and the axes that an export of hfbench tells.

    Raises `UserError` where the file is missing, no JSON, or holds no configuration.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.startswith("{")]
            found = [(f"line {number}", json.loads(line)) for number, line in lines]
        else:
            content = json.loads(text)
            if isinstance(content, dict):
                content = list(content.values()) if content and all(map(_is_result, content.values())) else [content]
            items = content if isinstance(content, list) else [content]
            found = [(f"entry {number}", item) for number, item in enumerate(items, 1)]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Name a .json or .jsonl file of configurations.") from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is no JSON: {error}. Expected a .json file, or a .jsonl file.") from None
    if not found:
        raise UserError(f"{path} holds no configuration. Expected JSON objects with keys such as attn_implementation.")
    return [(where, *_config_in(entry, path, where)) for where, entry in found]


def _is_result(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("config"), dict)


def _config_in(entry: Any, path: Path, where: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the configuration of an entry, which may be of results, and the axes that an export of hfbench tells."""
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {where} is {entry!r}, no JSON object. Expected one, such as {{}} for all defaults.")
    if not _is_result(entry):
        return entry, {}
    extension = (entry.get("metadata") or {}).get(EXTENSION) or {}
    return entry["config"], extension.get("configuration") or {}


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
            asked = _compile_params_of(config)
            _checked(CompileParams, asked, path, f"{where}, compile_kwargs")
            compiled[where] = asked
    if any({"warmup_iterations", "measurement_iterations"} & content.keys() for _, content, _ in given):
        notes.append("How many iterations there are stays with sampling: in params.yaml.")
    entries = tuple({"model": model, **dict(axes)} for model in models for axes in read)
    return ImportedConfigs(entries, _agreed(compiled, path), tuple(notes))


def _axes(config: Mapping[str, Any], exported: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Return the axes but round and model, checked as params.yaml is."""
    for key in config.keys() - Config.model_fields.keys() - set(_OWN_AXES):
        if config[key] is not None:
            raise UserError(f"{path}: {where}: hfbench has nothing for {key}, which is {config[key]!r}. Remove it.")
    if config["attn_implementation"].startswith(_PAGED) and not config["continuous_batching"]:
        raise UserError(
            f"{path}: {where}: attn_implementation is {config['attn_implementation']!r}, which is for continuous "
            "batching, and continuous_batching is false. Change one of them."
        )
    attention, backend = config["attn_implementation"].removeprefix(_PAGED), config["sdpa_backend"]
    axes = {
        "attn_implementation": f"{attention}:{backend}" if attention == _SDPA and backend else attention,
        # An export may have a mode's options in place of the mode.
        "compile_mode": exported.get("compile_mode", _compile_mode_of(config)),
        "use_kernels": config["kernelize"],
        "continuous_batching": config["continuous_batching"],
        "dtype": config["dtype"].rpartition(".")[2],
        "batch_size": config["batch_size"],
        "sequence_length": config["sequence_length"],
        "max_new_tokens": config["num_tokens_to_generate"],
        **{axis: USUAL[axis] if config.get(axis) is None else config[axis] for axis in _OWN_AXES},
    }
    _checked(Listed, {"model": "any", **axes}, path, where)
    return {axis: axes[axis] for axis in CONFIGURATION_AXES if axis in axes}


def _compile_mode_of(config: Mapping[str, Any]) -> str:
    """Return hfbench's `compile_mode` of a config: that of `compile_kwargs`, or of the key of earlier versions."""
    if config["compile_kwargs"] is None:
        return str(config["compile_mode"] or "off")
    return str(config["compile_kwargs"].get("mode", _DEFAULT_COMPILE_MODE) or "default")  # null is torch's default mode


def _compile_params_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration that compiles asks of torch beside the mode; `CompileConfig`'s keys, but no callable.

    As in `BenchmarkConfig`, `compile_kwargs` ask for `fullgraph` unless they say otherwise; the earlier versions, with
    a key `compile_mode`, did not.
    """
    kwargs = config["compile_kwargs"]
    if kwargs is None:
        kwargs = {"fullgraph": False, "options": config["compile_options"]}
    asked = {
        "backend": "inductor",
        "dynamic": None,
        "fullgraph": True,
        **kwargs,
        "options": kwargs.get("options") or {},
    }
    return {key: value for key, value in asked.items() if key != "mode"}


def _checked(schema: type[BaseModel], content: Any, path: Path, where: str) -> BaseModel:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        location = tuple(_KEYS.get(str(part), part) for part in detail["loc"])
        raise UserError(sentence(Path(f"{path}: {where}"), {**detail, "loc": location}, schema)) from None


def _agreed(compiled: Mapping[str, dict[str, Any]], path: Path) -> dict[str, Any] | None:
    """Return what all configurations that compile ask of `compile:`."""
    if not compiled:
        return None
    (first, agreed), *others = compiled.items()
    for where, asked in others:
        for key, value in asked.items():
            if value != agreed[key]:
                raise UserError(
                    f"{path}: {where} compiles with {key} {value!r} and {first} with {agreed[key]!r}, and "
                    "compile: in params.yaml holds for all. Import them apart, from two files."
                )
    return agreed
