"""An architecture as a JSON file: read, checked, and made into a config of transformers."""

import difflib
import json
from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.models.architecture import causal_model_types, describe_config
from hfbench.models.progress import one_line, quiet_libraries

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
