"""An architecture: what a config.json says, and whether transformers makes a causal language model of it.

All of it is known before weights are downloaded or made: the model is built without weights, on torch's meta device.
"""

import copy
import difflib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json
from hfbench.model.cache import one_line, quiet_libraries
from hfbench.model.folder import CONFIG, TOKENIZER_CONFIG


@dataclass(frozen=True)
class Architecture:
    """The fields of `hfbench.core.record.Manifest` that the config decides."""

    architecture: str
    model_type: str
    vocab_size: int
    max_position_embeddings: int | None
    quant_method: str | None = None


def read_architecture(folder: Path, where: str, trust_remote_code: bool) -> Architecture:
    """Return what the config.json in `folder` says; of the folder, only the model's own code is needed beside it.

    Raises `UserError`, naming the key at fault as far as it can be told, where it is no causal language model's.
    """
    content = read_content((folder / CONFIG).read_bytes(), f"{where}: {CONFIG}")
    _say_what_is_set(content, where)
    method = _quant_method(content, f"{where}: {CONFIG}")
    if method is not None:
        say(f"{where}: its weights are quantised ({method}), and measured as they are")
    return replace(_read(folder, content, where, trust_remote_code), quant_method=method)


def _read(folder: Path, content: dict[str, Any], where: str, trust_remote_code: bool) -> Architecture:
    if not trust_remote_code:
        return _make(content, f"{where}: {CONFIG}")[1]
    _check_code_is_here(folder, content, where)
    try:
        config = load_config(folder, trust_remote_code=True)
        own = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM")
        name = str(own).rsplit(".", 1)[-1] if own else _causal_classes()[config.model_type]
        return _describe(config, name)
    except Exception as error:  # of the model's own code
        raise UserError(
            f"{where}: transformers makes no causal language model of {CONFIG} ({type(error).__name__}: "
            f"{one_line(error)})."
        ) from error


def read_content(text: bytes, where: str) -> dict[str, Any]:
    """Return the JSON of a config.json. Raises `UserError` where it is none."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}). Expected a model's config.json.") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise UserError(
            f"{where}: model_type is missing. Expected that of a model as a current transformers saves it, such as "
            "llama."
        )
    return content


_QUANTIZED = ("quantization_config", "compression_config")  # the second is that of older compressed-tensors


def _quant_method(content: dict[str, Any], where: str) -> str | None:
    """Return how the weights of this config are quantised, by transformers' name, or None where they are not.

    Raises `UserError` where it does not say.
    """
    for name, part in _sections(content).items():
        for key in _QUANTIZED:
            found = part.get(key)
            if found is None:
                continue
            known = found if isinstance(found, dict) else {}
            usual = "compressed-tensors" if key == _QUANTIZED[1] else None
            if known.get("load_in_4bit") or known.get("load_in_8bit"):
                usual = "bitsandbytes"
            method = known.get("quant_method", usual)
            if not isinstance(method, str):
                raise UserError(
                    f"{where}: {name}{key} has no quant_method. Expected what a current transformers saves of "
                    "quantised weights, or weights that are not."
                )
            return method
    return None


def _sections(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a config's content, and the parts in it by the name that comes before their keys (`text_config.`)."""
    return {"": content, **{f"{key}.": value for key, value in content.items() if isinstance(value, dict)}}


# What changes how long a call takes or what it holds, and nothing of what it computes.
_AS_MEASURED: dict[str, Any] = {
    "use_cache": True,
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
    "chunk_size_feed_forward": 0,
    "slow_but_exact": False,
}
_AXES = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")


def load_config(folder: Path, trust_remote_code: bool) -> Any:
    """Return the config in a folder as hfbench measures it: with the cache, without further outputs, and with neither
    attention nor experts chosen, which the point does.
    """
    from transformers import AutoConfig

    with quiet_libraries():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        for part in _parts(config):
            for key, value in _AS_MEASURED.items():
                if getattr(part, key, value) != value:
                    setattr(part, key, value)
        config._attn_implementation = config._experts_implementation = None
    return config


def _parts(config: Any) -> Iterator[Any]:
    """Yield a config and those in it."""
    yield config
    for value in vars(config).values():
        if hasattr(value, "model_type"):
            yield from _parts(value)


def _say_what_is_set(content: dict[str, Any], where: str) -> None:
    sections = _sections(content).values()
    keys = [key for key, value in _AS_MEASURED.items() if any(part.get(key, value) != value for part in sections)]
    keys += [key for key in _AXES if any(part.get(key) is not None for part in sections)]
    if keys:
        say(f"{where}: hfbench sets {', '.join(keys)} itself, whatever the config says")


_POSITIONS = ("max_position_embeddings", "max_seq_len", "max_target_positions")  # of MPT and of Whisper
# These have a key is_decoder, and attend to what came before whatever it says (transformers 5.22).
_DECODERS_ALWAYS = ("gpt_neox", "gpt_neox_japanese")


def _describe(config: Any, name: str, unused_positions: int = 0) -> Architecture:
    """Return what a config says of the model of class `name`. Raises `ValueError` where it is no language model's."""
    text_config = config.get_text_config(decoder=True)
    vocab_size, layers = getattr(text_config, "vocab_size", None), getattr(text_config, "num_hidden_layers", None)
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise ValueError(f"vocab_size is {vocab_size}, and a language model has one")
    if layers == 0:
        raise ValueError("num_hidden_layers is 0, and a language model has some")
    # Through attribute_map, n_positions and its like answer to the first name too.
    limits = (getattr(text_config, name, None) for name in _POSITIONS)
    limit = next((limit for limit in limits if isinstance(limit, int)), None)
    return Architecture(
        architecture=name,
        model_type=config.model_type,
        vocab_size=vocab_size,
        max_position_embeddings=None if limit is None else limit - unused_positions,
    )


def _unused_positions(model: Any) -> int:
    """Return how many positions no token has: RoBERTa and what descends from it count from after the padding's id."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    paddings = [getattr(table, "padding_idx", None) for table in tables]
    return max((1 + padding for padding in paddings if padding is not None), default=0)


def _make(content: dict[str, Any], where: str) -> tuple[Any, Architecture]:
    """Return the config that transformers makes of a content, and what it says. Raises `UserError` as told above."""
    from transformers import CONFIG_MAPPING

    model_type, classes = content["model_type"], _causal_classes()
    if model_type not in CONFIG_MAPPING and "auto_map" in content:
        raise UserError(
            f"{where}: the model_type {model_type!r} is not in transformers, and the model brings code of its own. "
            "Set trust_remote_code: true for it in params.yaml if you trust that code."
        )
    if model_type not in classes:
        close = difflib.get_close_matches(model_type, classes, n=1)
        does = "run as a causal language model" if model_type in CONFIG_MAPPING else "know"
        raise UserError(
            f"{where}: model_type is {model_type!r}, which transformers does not {does}. Expected one that it does, "
            f"{f'perhaps {close[0]}' if close else 'such as llama'}."
        )
    try:
        config, model = _build(content)
    except Exception as error:  # each config, and each model, checks itself in its own way
        raise UserError(f"{where}: {_fault(content, error)}") from error
    _check_decoder(model, where)
    return config, _describe(config, type(model).__name__, _unused_positions(model))


def _check_decoder(model: Any, where: str) -> None:
    config, name = model.config, type(model).__name__
    if config.is_encoder_decoder:
        raise UserError(
            f"{where}: is_encoder_decoder is true, and hfbench measures decoders alone. Name a model that is one."
        )
    for key in ("is_decoder", "causal"):  # the second is that of XLM and FlauBERT
        has_key = key in config.__dataclass_fields__ and config.model_type not in _DECODERS_ALWAYS
        if has_key and not getattr(config, key):
            raise UserError(
                f"{where}: {key} is false, which makes {name} an encoder: a token attends to those after it too, and "
                f"no text is generated. Set {key} to true where it was trained so, or name a decoder."
            )


def _causal_classes() -> dict[str, str]:
    """Return the class that AutoModelForCausalLM makes of each model_type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _build(content: dict[str, Any]) -> tuple[Any, Any]:
    """Return the config of a content, and its model without weights; raises whatever transformers raises."""
    with quiet_libraries():  # torchao, which transformers imports where it is installed, says much at that
        import torch
        from transformers import AutoModelForCausalLM

    plain = {key: value for key, value in content.items() if key not in _QUANTIZED}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps(plain))
        config = load_config(Path(folder), trust_remote_code=False)
    _describe(config, "")
    with quiet_libraries(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.bfloat16, trust_remote_code=False)
    return config, model


def _builds(content: dict[str, Any]) -> bool:
    try:
        _build(content)
    except Exception:
        return False
    return True


def _builds_with(
    builds: Callable[[dict[str, Any]], bool], others: dict[str, Any], key: str, part: dict[str, Any]
) -> bool:
    return builds({**others, key: part})


_LONGEST_VALUE = 60  # characters of a value in a sentence


def _fault(content: dict[str, Any], error: Exception) -> str:
    """Return a sentence on why no model can be made of a content, with the key without which there could."""
    told = f"({type(error).__name__}: {one_line(error)})"
    # What cannot be imported is no key's fault.
    found = None if isinstance(error, ImportError) else _key_at_fault(content, str(error), _builds)
    if found is None:
        return f"transformers makes no {content['model_type']} of it {told}. Correct it, or name another model."
    key, value = found[0], json.dumps(found[1])
    shown = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
    return (
        f"{key} is {shown}, with which transformers makes no {content['model_type']} {told}. Correct it, or name "
        "another model."
    )


def _key_at_fault(
    content: dict[str, Any], told: str, builds: Callable[[dict[str, Any]], bool]
) -> tuple[str, Any] | None:
    """Return name and value of the first key without which a content gives a model, or None where there is none.

    Keys that are `told` come first, and parts before numbers. In a part too long to be shown the search goes on, and
    gives a name such as `text_config.rope_theta`.
    """
    keys = content.keys() - {"model_type"}
    for key in sorted(keys, key=lambda key: (key not in told, not isinstance(content[key], dict), key)):
        value, others = content[key], {name: value for name, value in content.items() if name != key}
        if not builds(others):
            continue
        if isinstance(value, dict) and len(json.dumps(value)) > _LONGEST_VALUE:
            inside = _key_at_fault(value, told, partial(_builds_with, builds, others, key))
            return (f"{key}.{inside[0]}", inside[1]) if inside else (key, value)
        return key, value
    return None


def _check_code_is_here(folder: Path, config: dict[str, Any], where: str) -> None:
    """Raise `UserError` where the model's code lies in another repository, fetched whenever the model is loaded."""
    tokenizer_config = folder / TOKENIZER_CONFIG
    contents = [config, read_json(tokenizer_config) if tokenizer_config.is_file() else {}]
    for reference in (item for content in contents for item in _strings(content.get("auto_map"))):
        if "--" in reference:
            raise UserError(
                f"{where}: its code is that of another repository ({reference}), which hfbench cannot pin. Copy the "
                "code into the model's folder, name it so in auto_map, and use the folder as a local model."
            )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


_SIMILAR_ENOUGH = 0.88  # num_hidden_layer for num_hidden_layers; legacy keys such as torch_dtype stay below
# What decides nothing about random weights in bfloat16: hfbench chooses the class and the dtype, and runs no own code.
_IGNORED_KEYS = frozenset({"architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"})


def read_architecture_file(path: str) -> str:
    """Return the JSON in an architecture file in one fixed form, so that editing its white space changes nothing.

    Raises `UserError` where the file is missing, no JSON, or no model's config.
    """
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"the architecture file {path} cannot be read ({error.strerror}). Set config in params.yaml to a model's "
            "config.json."
        ) from None
    content = read_content(text, path)
    if _quant_method(content, path) is not None:
        raise UserError(
            f"{path}: it is the config of quantised weights, and random ones are none. Remove {_QUANTIZED[0]}, and "
            "name it under quantization in params.yaml to have them quantised."
        )
    return json.dumps(content, sort_keys=True)


def make_config(text: str, path: str) -> Any:
    """Return transformers' config for what `read_architecture_file` returned; `path` says where it came from.

    Raises `UserError`, naming the key at fault as far as it can be told, where it is no causal language model's config.
    """
    from transformers import CONFIG_MAPPING

    content = {key: value for key, value in json.loads(text).items() if key not in _IGNORED_KEYS}
    if content["model_type"] in CONFIG_MAPPING:
        _check_spelling(content, CONFIG_MAPPING[content["model_type"]], path)
    _say_what_is_set(content, path)
    config, architecture = _make(content, path)
    pad_token_id = getattr(config.get_text_config(decoder=True), "pad_token_id", None)
    if isinstance(pad_token_id, int) and not 0 <= pad_token_id < architecture.vocab_size:
        raise UserError(
            f"{path}: pad_token_id is {pad_token_id}, outside vocab_size, {architecture.vocab_size}. "
            "Set pad_token_id to an id within it, or to null."
        )
    return config


def _check_spelling(content: dict[str, Any], config_class: Any, path: str) -> None:
    """Raise `UserError` for a key that is unknown and nearly a known one: transformers would use that one's default."""
    known = {*config_class.__dataclass_fields__, *config_class.attribute_map}
    for key in content.keys() - known - _IGNORED_KEYS - {"model_type"}:
        close = difflib.get_close_matches(key, known - content.keys(), n=1, cutoff=_SIMILAR_ENOUGH)
        if close:
            raise UserError(f"{path}: {key} is no key of {config_class.__name__}. Did you mean {close[0]}?")
