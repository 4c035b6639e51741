"""A quantizer of torchao's pt2e flow, which observes what TensorRT may compute in int8."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

from .observer import MagnitudeObserver

__all__ = ["TensorRTQuantizer"]

_ACTIVATION = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-128,
    quant_max=127,
    qscheme=torch.per_tensor_symmetric,
    is_dynamic=False,
    observer_or_fake_quant_ctr=MagnitudeObserver,
)


class TensorRTQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
    """Annotates the values of a graph that TensorRT may read in int8, for `prepare_pt2e`.

    The scales of weights need no observer: they are those of the weights themselves.
    """

    def __init__(self, values: Sequence[str]) -> None:
        """Annotate the nodes with these names."""
        super().__init__()
        self._values = frozenset(values)

    def annotate(self, model: GraphModule) -> GraphModule:
        wanted: defaultdict[Node, dict[Node, QuantizationSpec]] = defaultdict(dict)
        for node in model.graph.nodes:
            if node.name in self._values:
                for user in node.users:
                    wanted[user][node] = _ACTIVATION
        for user, specs in wanted.items():
            user.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map=dict(specs), _annotated=True
            )
        return model

    def validate(self, model: GraphModule) -> None:
        pass
