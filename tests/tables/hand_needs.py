"""What models need, in numbers small enough to work with by hand; the tables' tests use it too."""

from typing import Any

# Two layers that keep 10 bytes a token.
KIND = {"layers": 2, "bytes_per_token_per_row": 10, "key_dim": 4, "value_dim": 4, "window_tokens": None}
# Weights of 1000 bytes, and one product of 100 parameters.
DENSE: dict[str, Any] = {
    "dense_weight_bytes": 1000,
    "routed_expert_weight_bytes": 0,
    "dense_matmul_parameters": 100,
    "routed_expert_matmul_parameters": 0,
    "head_matmul_parameters": 50,
    "experts": None,
    "experts_per_token": None,
    "attention_heads": 3,
    "cache": {"attention": [KIND], "state_bytes_per_row": 0},
}
