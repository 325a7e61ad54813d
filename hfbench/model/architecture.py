"""An architecture: as a model's folder tells it, and as a JSON file that is made into a config of transformers."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.model.cache import one_line, quiet_libraries


@dataclass(frozen=True)
class Architecture:
    """The fields of `hfbench.core.record.Manifest` that the config decides."""

    architecture: str
    model_type: str
    vocab_size: int
    max_position_embeddings: int | None


def read_architecture(folder: Path, where: str, trust_remote_code: bool) -> Architecture:
    """Return what the config.json in `folder` says. Raises `UserError` where transformers makes no causal LM of it."""
    content = read_json(folder / "config.json")
    if not isinstance(content, dict) or "model_type" not in content:
        raise UserError(f"{where}: config.json has no model_type. Save the model with a current transformers.")
    if trust_remote_code:
        _check_code_is_here(folder, content, where)
    from transformers import AutoConfig

    try:
        with quiet_libraries():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # configs check themselves, and remote code raises anything
        if "auto_map" in content and not trust_remote_code:
            raise UserError(
                f"{where}: the model_type {content['model_type']!r} is not in transformers, and the model brings code "
                "of its own. Set trust_remote_code: true for it in params.yaml if you trust that code."
            ) from error
        raise UserError(f"{where}: transformers cannot read config.json ({one_line(error)}).") from error
    return describe_config(config, where, trust_remote_code)


def describe_config(config: Any, where: str, trust_remote_code: bool = False) -> Architecture:
    """Return what a loaded config says. Raises `UserError` where it is no causal language model's."""
    causal_class = _causal_class(config, where, trust_remote_code)
    text_config = config.get_text_config()
    vocab_size = getattr(text_config, "vocab_size", None)
    if not isinstance(vocab_size, int):
        raise UserError(
            f"{where}: the config of {config.model_type} has no vocab_size. Expected that of a language model."
        )
    # Through attribute_map, n_positions and its like answer to this name too.
    positions = getattr(text_config, "max_position_embeddings", None)
    return Architecture(
        architecture=causal_class,
        model_type=config.model_type,
        vocab_size=vocab_size,
        max_position_embeddings=positions if isinstance(positions, int) else None,
    )


def causal_model_types() -> dict[str, str]:
    """Return the class that AutoModelForCausalLM makes of each model_type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _causal_class(config: Any, where: str, trust_remote_code: bool) -> str:
    own = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM")
    if own and trust_remote_code:
        return str(own).rsplit(".", 1)[-1]
    known = causal_model_types()
    if config.model_type not in known:
        close = difflib.get_close_matches(config.model_type, known, n=1)
        raise UserError(
            f"{where}: model_type is {config.model_type!r}, which transformers does not run as a causal language "
            f"model. Expected one that it does, such as {close[0] if close else 'llama'}."
        )
    return known[config.model_type]


def _check_code_is_here(folder: Path, config: dict[str, Any], where: str) -> None:
    """Raise `UserError` where the model's code lies in another repository, fetched whenever the model is loaded."""
    tokenizer_config = folder / "tokenizer_config.json"
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
_IGNORED_KEYS = frozenset({"model_type", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"})


def read_architecture_file(path: str) -> str:
    """Return the JSON in an architecture file in one fixed form, so that editing its white space changes nothing.

    Raises `UserError` where the file is missing, no JSON, or no model's config.
    """
    try:
        content = json.loads(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise UserError(
            f"the architecture file {path} cannot be read ({error.strerror}). Set config in params.yaml to a model's "
            "config.json."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Expected a model's config.json.") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise UserError(
            f"{path}: model_type is missing. Expected a model's config.json, with a model_type such as llama."
        )
    return json.dumps(content, sort_keys=True)


def make_config(text: str, path: str) -> Any:
    """Return transformers' config for what `read_architecture_file` returned; `path` says where it came from.

    Raises `UserError`, naming the key as far as transformers tells it, where it is no causal language model's config.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    content: dict[str, Any] = json.loads(text)
    model_type = content["model_type"]
    if model_type not in CONFIG_MAPPING:
        close = difflib.get_close_matches(model_type, causal_model_types(), n=1)
        raise UserError(
            f"{path}: model_type is {model_type!r}, which transformers does not know. "
            f"Expected {f'perhaps {close[0]}' if close else 'one that it does, such as llama'}."
        )
    if content.get("quantization_config") is not None:
        raise UserError(f"{path}: quantization_config is set, and random weights are made in bfloat16. Remove it.")
    _check_spelling(content, CONFIG_MAPPING[model_type], path)
    try:
        with quiet_libraries():
            config = AutoConfig.for_model(
                model_type, **{key: value for key, value in content.items() if key not in _IGNORED_KEYS}
            )
    except Exception as error:  # each config class checks itself in its own way
        raise UserError(
            f"{path}: to transformers it is no valid config of {model_type} ({one_line(error)})."
        ) from error
    architecture = describe_config(config, path)
    pad_token_id = getattr(config.get_text_config(), "pad_token_id", None)
    if isinstance(pad_token_id, int) and pad_token_id >= architecture.vocab_size:
        raise UserError(
            f"{path}: pad_token_id is {pad_token_id}, outside vocab_size, {architecture.vocab_size}. "
            "Set pad_token_id to an id within it, or to null."
        )
    return config


def _check_spelling(content: dict[str, Any], config_class: Any, path: str) -> None:
    """Raise `UserError` for a key that is unknown and nearly a known one: transformers would use that one's default."""
    known = {*config_class.__dataclass_fields__, *config_class.attribute_map}
    for key in content.keys() - known - _IGNORED_KEYS:
        close = difflib.get_close_matches(key, known - content.keys(), n=1, cutoff=_SIMILAR_ENOUGH)
        if close:
            raise UserError(f"{path}: {key} is no key of {config_class.__name__}. Did you mean {close[0]}?")
