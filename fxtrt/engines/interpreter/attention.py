"""Execute attention, a pair of layers: ATTENTION_INPUT and ATTENTION_OUTPUT."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import Compute, Layer, layer


@layer("ATTENTION_INPUT", "IAttentionInputLayer")
def attention_input(layer: Layer) -> Compute:
    attention = layer.raw.attention
    normalized = attention.norm_op.name == "SOFTMAX"
    causal = _causal(attention)
    _require_plain(layer, attention)

    def compute(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        # This layer applies no scale: the query is scaled before it.
        scores = torch.matmul(query, key.mT)
        if causal != "NONE":
            offset = key.shape[-2] - query.shape[-2] if causal == "LOWER_RIGHT" else 0
            hidden = torch.ones_like(scores, dtype=torch.bool).triu(1 + offset)
            scores = scores.masked_fill(hidden, -torch.inf)
        if mask is not None:
            hides = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -torch.inf) if hides else scores + mask
        return torch.matmul(scores.softmax(-1) if normalized else scores, value)

    return compute


@layer("ATTENTION_OUTPUT", "IAttentionOutputLayer")
def attention_output(layer: Layer) -> Compute:
    return lambda x: x


def _causal(attention: object) -> str:
    """Return the alignment of the causal mask, which is UPPER_LEFT without `causal_kind`."""
    kind = getattr(attention, "causal_kind", None)
    if kind is not None:
        return str(kind.name)
    return "UPPER_LEFT" if getattr(attention, "causal", False) else "NONE"


def _require_plain(layer: Layer, attention: object) -> None:
    for name in ("normalization_quantize_scale", "query_lengths", "key_value_lengths"):
        if getattr(attention, name, None) is not None:
            raise NotImplementedError(f"attention with {name}")
    for name in ("query_form", "key_value_form"):
        form = getattr(attention, name, None)
        if form is not None and form.name != "PADDED_BHND":
            raise NotImplementedError(f"attention with {name} {form.name}")
