"""Counts the engines that Torch-TensorRT's `dryrun` finds in models of the zoo, without a GPU.

    python benchmarks/peer_dryrun.py --results peer.json resnet18 swin_t

It needs torch_tensorrt, which may be in another environment than fxtrt's other benchmarks.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from zoo import EXAMPLES, Example
from zoo_inputs import make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add to")
    parser.add_argument("models", nargs="+", choices=[example.name for example in EXAMPLES])
    arguments = parser.parse_args()
    records = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    with without_gpu():
        for example in (example for example in EXAMPLES if example.name in arguments.models):
            records[example.name] = dryrun(example)
            print(example.name, records[example.name], flush=True)
            arguments.results.write_text(json.dumps(records, indent=1))


def without_gpu() -> Any:
    """Patch torch.cuda with answers that torch_tensorrt needs to be imported and to partition."""
    answers = {
        "get_device_capability": (8, 9),
        "current_device": 0,
        "get_device_name": "none",
        "mem_get_info": (2**34, 2**34),
    }
    functions = {name: mock.Mock(return_value=answer) for name, answer in answers.items()}
    return mock.patch.multiple(torch.cuda, **functions)


def dryrun(example: Example) -> dict[str, Any]:
    """Return the counts of operators and engines in the static graph, or the error."""
    peer = importlib.import_module("torch_tensorrt")
    compiler = importlib.import_module("torch_tensorrt.dynamo._compiler")
    inputs = make(example.inputs.example)
    trackers: list[Any] = []
    patches = {
        "to_torch_device": lambda *_: torch.device("cpu"),
        "dryrun_stats_display": lambda tracker, _: trackers.append(tracker),
    }
    try:
        program = torch.export.export(example.model(), inputs)
        with mock.patch.multiple(compiler, **patches):
            peer.dynamo.compile(program, arg_inputs=list(inputs), dryrun=True)
        (tracker,) = trackers
    except Exception as error:  # any error is the result of the row
        return {"version": peer.__version__, "problem": f"{type(error).__name__}: {error}"[:300]}
    return {
        "version": peer.__version__,
        "operators": tracker.total_ops_in_graph,
        "supported": tracker.supported_ops_in_graph,
        "engines": tracker.tensorrt_graph_count,
        "outside": tracker.unsupported_ops,
    }


if __name__ == "__main__":
    main()
