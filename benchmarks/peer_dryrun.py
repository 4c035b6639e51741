"""Counts what Torch-TensorRT's `dryrun` makes of models of the zoo, on a machine without a GPU.

    python benchmarks/peer_dryrun.py --results peer.json resnet18 swin_t

Runs where torch_tensorrt is installed, which need not be where fxtrt's other benchmarks run.
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
    """Answers what torch_tensorrt asks of a GPU when imported and when it partitions."""
    answers = {
        "get_device_capability": (8, 9),
        "current_device": 0,
        "get_device_name": "none",
        "mem_get_info": (2**34, 2**34),
    }
    functions = {name: mock.Mock(return_value=answer) for name, answer in answers.items()}
    return mock.patch.multiple(torch.cuda, **functions)


def dryrun(example: Example) -> dict[str, Any]:
    """Return operators, those supported, engines, and the version, of the static graph; or the error."""
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
    except Exception as error:  # whatever it is, it is the row's result
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
