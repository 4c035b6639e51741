"""Tries the engine of a machine on all operators and on a small detector; makes a record of it."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch
from tabulate import tabulate
from torch.utils import _pytree as pytree

from ..accuracy.metrics import agreement
from ..ahead_of_time import compile, report
from ..engines.select import select
from ..reporting import Coverage
from ..settings import Settings
from .operator_rows import FAMILIES, ROWS_OF
from .operator_rows.row import OpRow
from .row_module import FamilyModule

__all__ = ["DetectorResult", "OperatorResult", "SelfTest", "selftest"]

RIGHT, WRONG, FAILED, LEFT, BUILT = "right", "wrong", "not built", "in PyTorch", "built, not run"
_OUTCOMES = (RIGHT, WRONG, FAILED, LEFT, BUILT)
_WIDER = {torch.float32: 10, torch.float16: 5, torch.bfloat16: 5}
"""The factors by which the rows' tolerances are widened: kernels of a GPU sum in another order."""
_LEAST_AGREEMENT = 0.98
_DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OperatorResult:
    """The result of one operator.

    outcome: "right", "wrong", "not built", "in PyTorch" (this engine declines it), or "built, not
             run" where engines cannot run on the machine.
    detail:  why, or "".
    """

    family: str
    operator: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """The result of a detector.

    agreement:   the share of its detections that eager has too; None without a run in engines.
    flops_share: what engines do of the FLOPs.
    """

    name: str
    outcome: str
    detail: str = ""
    agreement: float | None = None
    flops_share: float | None = None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The record of a machine. It has nothing of the user's models or files in it.

    environment: versions, GPU and driver.
    detector:    None without torchvision.
    """

    environment: dict[str, str]
    operators: tuple[OperatorResult, ...]
    detector: DetectorResult | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Return whether nothing was wrong and everything that was converted was built."""
        tried: list[OperatorResult | DetectorResult] = [*self.operators]
        tried += [self.detector] if self.detector else []
        return not any(one.outcome in (WRONG, FAILED) for one in tried)

    def to_json(self) -> str:
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=1) + "\n"

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.environment.items()]
        of_family = {family: Counter[str]() for family in FAMILIES}
        for one in self.operators:
            of_family[one.family][one.outcome] += 1
        seen = [outcome for outcome in _OUTCOMES if any(c[outcome] for c in of_family.values())]
        rows = [
            [family, *(counts[outcome] or "" for outcome in seen)]
            for family, counts in of_family.items()
        ]
        total = sum(of_family.values(), Counter[str]())
        rows.append(["all", *(total[outcome] for outcome in seen)])
        lines += ["", tabulate(rows, headers=["operators", *seen]), ""]
        lines += [f"{one.operator}: {one.outcome}: {one.detail}" for one in self._to_tell()]
        if self.detector is not None:
            lines.append(_sentence(self.detector))
        else:
            lines.append("No detector was tried, because that needs fxtrt[vision].")
        verdict = "Nothing is wrong." if self.passed else "Something is wrong: see above."
        return "\n".join([*lines, f"{verdict} It took {self.seconds:.0f} s."])

    def _to_tell(self) -> Iterator[OperatorResult]:
        return (one for one in self.operators if one.outcome in (WRONG, FAILED))


def selftest(settings: Settings, progress: Progress = lambda text: None) -> SelfTest:
    """Run one row of every operator, and a small detector, in the engine that `settings` chooses.

    Engines check themselves, and the answers are compared with those of PyTorch on the CPU.

    Args:
        progress: is called with the name of what comes next.

    Raises:
        EngineUnavailable: there is no such engine here.
    """
    begun = time.perf_counter()
    backend = select(settings.engine)
    device = torch.device("cuda" if backend.runnable and torch.cuda.is_available() else "cpu")
    operators: list[OperatorResult] = []
    with torch.no_grad(), _quiet():
        for family in FAMILIES:
            progress(family)
            operators += _family(family, settings, device)
        progress(_DETECTOR)
        detector = _detector(settings, device)
    environment = _environment(backend.fingerprint)
    return SelfTest(environment, tuple(operators), detector, time.perf_counter() - begun)


def _family(family: str, settings: Settings, device: torch.device) -> list[OperatorResult]:
    targets = dict.fromkeys(row.target for row in FAMILIES[family])
    rows = [ROWS_OF[target][0] for target in targets if ROWS_OF[target]]
    model = FamilyModule(rows, device).eval()
    try:
        fast = compile(
            model,
            model.inputs,
            settings=settings,
            min_cluster_size=1,
            whitelist=("rows.*",),
        )
        actual = fast(*model.inputs)
    except Exception as error:  # Whatever it is belongs into the record.
        why = f"{type(error).__name__}: {error}"
        return [OperatorResult(family, str(row.target), FAILED, why) for row in rows]
    coverage = report(fast)
    on_cpu = FamilyModule(rows, torch.device("cpu"))
    expected = on_cpu(*on_cpu.inputs)
    return [
        OperatorResult(
            family, str(row.target), *_outcome(row, name, coverage, actual[name], expected[name])
        )
        for row, name in zip(rows, model.names, strict=True)
    ]


def _outcome(
    row: OpRow, name: str, coverage: Coverage, actual: Any, expected: Any
) -> tuple[str, str]:
    found = [one for one in coverage.rejections if one.module == f"rows.{name}"]
    for code, outcome in (("wrong", WRONG), ("build_failed", FAILED)):
        if why := next((one.detail for one in found if one.code == code), None):
            return outcome, why
    if why := _difference(row, actual, expected):
        return WRONG, why
    if found:
        return LEFT, found[0].detail
    if any(one.check is not None and one.check.unchecked for one in coverage.clusters):
        return BUILT, "engines cannot run here"
    return RIGHT, ""


def _difference(row: OpRow, actual: Any, expected: Any) -> str:
    pairs = zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True)
    for a, e in pairs:
        if not isinstance(e, torch.Tensor):
            continue
        tolerance = row.tolerance * _WIDER.get(e.dtype, 1)
        try:
            torch.testing.assert_close(
                a.cpu(), e, atol=tolerance, rtol=tolerance, equal_nan=True, check_stride=False
            )
        except AssertionError as error:
            return " ".join(str(error).split())
    return ""


def _detector(settings: Settings, device: torch.device) -> DetectorResult | None:
    try:
        from .example_models import load_example
    except ImportError:
        return None
    example = load_example(_DETECTOR).to(str(device))
    try:
        fast = compile(example.model, example.inputs, settings=settings)
        actual = fast(*example.inputs)
    except Exception as error:  # Whatever it is belongs into the record.
        return DetectorResult(_DETECTOR, FAILED, f"{type(error).__name__}: {error}")
    coverage = report(fast)
    share = agreement(actual, example.model(*example.inputs))
    codes = Counter(one.code for one in coverage.rejections if one.computes)
    left = ", ".join(f"{count} calls {code}" for code, count in sorted(codes.items()))
    unrun = any(one.check is not None and one.check.unchecked for one in coverage.clusters)
    if share < _LEAST_AGREEMENT or codes["wrong"]:
        outcome = WRONG
    elif codes["build_failed"]:
        outcome = FAILED
    else:
        outcome = BUILT if unrun else RIGHT
    return DetectorResult(_DETECTOR, outcome, left, None if unrun else share, coverage.flops_share)


def _sentence(detector: DetectorResult) -> str:
    text = f"{detector.name}: {detector.outcome}"
    if detector.agreement is not None:
        text += f"; {detector.agreement:.1%} of its detections are eager's"
    if detector.flops_share is not None:
        text += f"; {detector.flops_share:.0%} of the FLOPs in engines"
    return text + (f"; in PyTorch: {detector.detail}" if detector.detail else "")


def _environment(fingerprint: str) -> dict[str, str]:
    found = {
        "fxtrt": _version("fxtrt"),
        "engine": fingerprint,
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "triton": _version("triton"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
        found["CUDA of torch"] = str(torch.version.cuda)
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what is logged about single clusters off the console: the record has it."""
    logger = logging.getLogger("fxtrt")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
