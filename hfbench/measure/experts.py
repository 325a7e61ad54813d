"""How a mixture of experts computes: asked for at load, and proven by the functions that its experts went through."""

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import (
    ALL_EXPERTS_FUNCTIONS,
    ExpertsInterface,
    grouped_mm_experts_forward,
    use_experts_implementation,
)

from hfbench.measure.failure import NoExpertsError

AUTO = "auto"
EAGER = "eager"
GROUPED = "grouped_mm"
# By its own name, `generate` runs the prompt by grouped_mm and the decoding steps by batched_mm on any device but the
# CPU, and says so in a log line at most (transformers 5.22, `GenerationMixin._optimize_model_for_decode`). That is
# what `auto` measures there.
GROUPED_THROUGHOUT = "hfbench_grouped_mm"
# How classes of experts end that are not of transformers' interface: DbrxExperts, DogeCDMoE, Llama4TextMoe, and
# MixtralSparseMoeBlock in remote code. Qwen2MoeMLP is a dense layer of a mixture of experts.
_CLASS_OF_EXPERTS = re.compile(r"(Experts|M[oO][eE]|M[oO][eE]Block)$")


@dataclass(frozen=True)
class Experts:
    """The modules of a model that are mixtures of experts, and the functions that they may compute by.

    `functions` has, for the code of each, its full name and the value of `experts_implementation` that stands for it.
    `has_choice` is whether transformers' interface decides between them; modules outside it have `eager` alone, which
    is their own code.
    """

    modules: tuple[nn.Module, ...]
    functions: dict[CodeType, tuple[str, str]]
    has_choice: bool


def experts_argument(asked: str) -> dict[str, str]:
    """Return the argument of `from_pretrained` for a value of the axis: none for `auto`, transformers' own choice."""
    if asked == AUTO:
        return {}
    ExpertsInterface.register(GROUPED_THROUGHOUT, grouped_mm_experts_forward)
    return {"experts_implementation": GROUPED_THROUGHOUT if asked == GROUPED else asked}


def find_experts(model: nn.Module) -> Experts:
    """Return the experts of a loaded model, none where it is dense.

    The modules say it, and not the config, which has a value for a dense model too.
    """
    modules = tuple(module for module in model.modules() if _is_of_interface(type(module)))
    if not modules:
        modules = tuple(_outermost(model))
        return Experts(modules, _own_functions(modules), has_choice=False)
    chosen = {
        function.__code__: (_full_name(function), GROUPED if name == GROUPED_THROUGHOUT else name)
        for name, function in ALL_EXPERTS_FUNCTIONS.items()
        if hasattr(function, "__code__")
    }
    return Experts(modules, chosen | _own_functions(modules), has_choice=True)


def check_experts(asked: str, model: PreTrainedModel, experts: Experts) -> None:
    """Raise `NoExpertsError` where the model cannot compute as asked.

    transformers takes the values for any model, and runs what there is.
    """
    name = type(model).__name__
    if asked != AUTO and not experts.modules:
        raise NoExpertsError(f"experts_implementation is {asked}, and this {name} has no experts; it runs with {AUTO}")
    if asked not in (AUTO, EAGER) and not experts.has_choice:
        raise NoExpertsError(
            f"experts_implementation is {asked}, and the experts of {name} have code of their own, which does not go "
            f"through transformers' interface; it runs with {AUTO} or {EAGER}"
        )


def describe_experts(
    experts: Experts, calls: Mapping[tuple[CodeType, int], int], operators: Mapping[str, int]
) -> dict[str, Any]:
    """Return, for `effective`, by what the experts computed in a watched call; nothing for a dense model.

    `calls` and `operators` are those of `watch_functions` and `watch_operators`. `experts_implementation` names what
    ran, in the order in which it first did; `experts_watched` counts the modules that ran, and `experts_modules` all.
    """
    if not experts.modules:
        return {}
    functions: Counter[str] = Counter()
    own = {id(module) for module in experts.modules}  # a model that drafts may have experts too
    calls = {call: count for call, count in calls.items() if call[1] in own}
    for (code, _), count in calls.items():
        functions[experts.functions[code][0]] += count
    ran = dict.fromkeys(experts.functions[code][1] for code, _ in calls)
    return {
        "experts_implementation": ", ".join(ran) if ran else None,
        "experts_functions": dict(functions),
        "experts_modules": len(experts.modules),
        "experts_watched": len({module for _, module in calls}),
        "experts_operators": dict(operators),
    }


def experts_differences(asked: str, effective: Mapping[str, Any]) -> list[str]:
    """Return, in words, where the experts did not compute as asked in the watched call."""
    if asked == AUTO:
        return []
    ran, modules, watched = (
        effective["experts_implementation"],
        effective["experts_modules"],
        effective["experts_watched"],
    )
    if not watched:
        return [f"none of {modules} modules of experts ran: something else computes in their place"]
    found = [] if ran == asked else [f"the experts computed by {ran}, not {asked}"]
    return found if watched == modules else [*found, f"{watched} of {modules} modules of experts ran"]


def _is_of_interface(kind: type[nn.Module]) -> bool:
    """Return whether `use_experts_implementation` has put its own `forward` in place of the class's."""
    code = getattr(kind.forward, "__code__", None)
    return code is not None and code.co_qualname.startswith(f"{use_experts_implementation.__name__}.")


def _own_functions(modules: tuple[nn.Module, ...]) -> dict[CodeType, tuple[str, str]]:
    kinds: dict[type[nn.Module], None] = dict.fromkeys(type(module) for module in modules)
    forwards = [inspect.unwrap(kind.forward) for kind in kinds]
    return {forward.__code__: (_full_name(forward), EAGER) for forward in forwards}


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Yield what a class name calls experts, without what lies inside it."""
    for child in module.children():
        if _CLASS_OF_EXPERTS.search(type(child).__name__):
            yield child
        else:
            yield from _outermost(child)


def _full_name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"
