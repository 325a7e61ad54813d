"""What a model's config says of it: class, type, vocabulary, positions."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.foundation.files import read_json
from hfbench.models.progress import one_line, quiet_libraries


@dataclass(frozen=True)
class Architecture:
    """The fields of `hfbench.foundation.records.Manifest` that the config decides."""

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
