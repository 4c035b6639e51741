"""Trains a detector on pictures of shapes, and writes its weights and how good they are.

    python benchmarks/train_shapes.py --out build/shapes/small
    python benchmarks/train_shapes.py --architecture mask_rcnn_R_50_FPN --device cuda \\
        --out build/shapes/mask_rcnn_R_50_FPN

Pictures are drawn from the seed; none is stored. The folder gets `weights.pth`, a state dict;
`annotations.json`, what the validation pictures show, in COCO's format; and `training.json`: how
the model was trained, and its box AP. `load_trained` reads the folder again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from shape_detectors import ARCHITECTURES, Architecture, Plan
from shape_pictures import Picture, Task, coco_json, flipped, generate
from torch import Tensor, nn

from fxtrt.accuracy import box_ap

__all__ = ["Trained", "judge", "load_trained", "train", "write"]

_VALIDATION = 64
"""Pictures. Their seed is the one after that of training."""
_LARGEST_GRADIENT = 5.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained detector in eval mode, and how it came to be.

    pictures: what it is judged by; it has not seen them in training.
    """

    architecture: Architecture
    model: nn.Module
    pictures: list[Picture]
    seed: int = 0
    options: tuple[Any, ...] = ()


def main() -> None:
    arguments = _parser().parse_args()
    architecture = ARCHITECTURES[arguments.architecture]
    changes = {name: getattr(arguments, name) for name in Plan.__dataclass_fields__}
    plan = replace(architecture.plan, **{k: v for k, v in changes.items() if v is not None})
    task = replace(architecture.task, size=tuple(arguments.size or architecture.task.size))
    architecture = replace(architecture, plan=plan, task=task)
    started = time.perf_counter()
    options = tuple(arguments.options)
    trained = train(architecture, seed=arguments.seed, device=arguments.device, options=options)
    seconds = time.perf_counter() - started
    ap = judge(trained, trained.model, arguments.device)
    write(trained, arguments.out, ap, seconds)
    print(f"{architecture.name}: box AP {ap:.3f} after {seconds:.0f} s", flush=True)
    if ap < arguments.least_ap:
        raise SystemExit(f"box AP is {ap:.3f}, expected at least {arguments.least_ap}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", default="small", choices=list(ARCHITECTURES))
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the pictures")
    parser.add_argument("--pictures", type=int, help="how many different ones to train on")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, help="pictures of a step")
    parser.add_argument("--rate", type=float, help="the highest learning rate")
    parser.add_argument("--least-ap", type=float, default=0.0, help="fail below this box AP")
    parser.add_argument("--options", nargs="*", default=[], help="of Detectron2's config")
    return parser


def train(
    architecture: Architecture, *, seed: int = 0, device: str = "cpu", options: Sequence[Any] = ()
) -> Trained:
    """Return the architecture trained by its own plan, on pictures of its own task.

    On one machine the CPU gives the same weights each time, whatever the number of threads.
    """
    task, plan = architecture.task, architecture.plan
    processes = 0 if device == "cpu" else os.cpu_count() or 1
    pictures = generate(task, plan.pictures, seed=seed, processes=processes)
    # All of them fit into a GPU's memory, so no step waits for one.
    pictures = [_moved(picture, device) for picture in pictures]
    torch.manual_seed(seed)
    model = architecture.build(task, options).to(device).train()
    with _one_thread(device):
        _fit(architecture, model, pictures, seed, device)
    validation = generate(task, _VALIDATION, seed=seed + 1)
    return Trained(architecture, model.eval(), validation, seed, tuple(options))


@contextlib.contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Sum in one order: on a CPU that depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _moved(picture: Picture, device: str) -> Picture:
    fields = (picture.image, picture.boxes, picture.labels, picture.masks)
    return Picture(*(field.to(device) for field in fields))


def _fit(
    architecture: Architecture,
    model: nn.Module,
    pictures: Sequence[Picture],
    seed: int,
    device: str,
) -> None:
    plan = architecture.plan
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=plan.steps, pct_start=0.15
    )
    started = time.perf_counter()
    for step, batch in enumerate(_batches(pictures, plan, seed), 1):
        # bfloat16 has the range of float32, so that no gradient needs to be scaled.
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            losses = architecture.losses(model, batch, device)
        loss: Tensor = torch.stack([one.float() for one in losses.values()]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step in (1, plan.steps):
            spent = time.perf_counter() - started
            print(f"step {step} of {plan.steps}: loss {loss.item():.3f}, {spent:.0f} s", flush=True)


def _batches(pictures: Sequence[Picture], plan: Plan, seed: int) -> Iterator[list[Picture]]:
    """Return the pictures of each step: each picture once in an epoch, flipped at random."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(plan.steps):
        while len(waiting) < plan.batch:
            waiting += torch.randperm(len(pictures), generator=generator).tolist()
        taken, waiting = waiting[: plan.batch], waiting[plan.batch :]
        flips = (torch.rand(plan.batch, 2, generator=generator) < 0.5).tolist()
        yield [
            flipped(pictures[i], sideways=sideways, upside_down=upside_down)
            for i, (sideways, upside_down) in zip(taken, flips, strict=True)
        ]


def judge(trained: Trained, call: Callable[[Any], Any], device: str = "cpu") -> float:
    """Return the box AP of `call`, the model or a compiled one, on one picture at a time.

    Args:
        device: where the images are.
    """
    architecture, pictures = trained.architecture, trained.pictures
    with torch.no_grad():
        found = [call(architecture.inputs([picture], device))[0] for picture in pictures]
    return box_ap(found, architecture.truth(pictures))


def write(trained: Trained, folder: Path, ap: float, seconds: float) -> None:
    """Write what `load_trained` reads, and the annotations of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.cpu() for name, value in trained.model.state_dict().items()}
    torch.save(state, folder / "weights.pth")
    (folder / "annotations.json").write_text(json.dumps(coco_json(trained.pictures)))
    architecture = trained.architecture
    record = {
        "architecture": architecture.name,
        "task": asdict(architecture.task),
        "plan": asdict(architecture.plan),
        "options": trained.options,
        "seed": trained.seed,
        "box_ap": ap,
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def load_trained(folder: Path, device: str = "cpu") -> Trained:
    """Return what `write` wrote, with the validation pictures drawn anew."""
    record = json.loads((folder / "training.json").read_text())
    fields = record["task"]
    task = Task(**{**fields, "size": tuple(fields["size"]), "radii": tuple(fields["radii"])})
    plan = Plan(**record["plan"])
    architecture = replace(ARCHITECTURES[record["architecture"]], task=task, plan=plan)
    options, seed = tuple(record["options"]), record["seed"]
    model = architecture.build(task, options)
    weights = torch.load(folder / "weights.pth", weights_only=True, map_location="cpu")
    model.load_state_dict(weights)
    pictures = generate(task, _VALIDATION, seed=seed + 1)
    return Trained(architecture, model.eval().to(device), pictures, seed, options)


if __name__ == "__main__":
    main()
