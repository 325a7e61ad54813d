"""What the token observer costs: instrumented and bare `generate` of the default model, alternating in one process.

`python -m benchmarks.observer [PAIRS]` prints the median of the ratios of pairs, which should be at most 1.01.
"""

import statistics
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

from hfbench.core.point import Configuration
from hfbench.core.record import Settings
from hfbench.core.results import PARAMS
from hfbench.measure.device import Cpu
from hfbench.measure.generation import Call, prepare_generate
from hfbench.measure.loading import load_model
from hfbench.measure.prompt import Prompt
from hfbench.model.manifest import fingerprint, materialise, resolve
from hfbench.params.schema import load_params

_MODEL = "smollm2-135m-instruct"


def main() -> None:
    """Run the pairs and print the ratio."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    folder = materialise(resolve(_MODEL, fingerprint(_MODEL, load_params(PARAMS).models), None))
    configuration = Configuration(
        round=1, model=_MODEL, attn_implementation="sdpa", batch_size=1, sequence_length=128, max_new_tokens=32
    )
    device = Cpu()
    model, _ = load_model(folder, configuration, device.torch_device, trust_remote_code=False)
    text = Path("hfbench/inputs/standard_prompt.txt").read_text()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:128]])
    call = prepare_generate(model, configuration, Settings(), Prompt(ids, torch.ones_like(ids), pad_token_id=2), device)
    call(True), call(False)
    ratios, bare = [], []
    for pair in range(pairs):
        # The order within a pair alternates, so that a drift of the machine cancels out.
        seconds = {observed: _seconds(call(observed)) for observed in ((True, False) if pair % 2 else (False, True))}
        ratios.append(seconds[True] / seconds[False])
        bare.append(seconds[False])
    print(f"bare generate: median {statistics.median(bare):.4f} s over {pairs} pairs")
    print(f"instrumented / bare: median {statistics.median(ratios):.4f} (at most 1.01)")


def _seconds(call: Call) -> float:
    return call.end - call.start


if __name__ == "__main__":
    main()
