"""Turns the options of a compilation into one frozen value, which is validated when it is made."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from .errors import SettingsError

__all__ = ["Options", "Settings"]

log = logging.getLogger(__name__)

_CHOICES: dict[str, tuple[str, ...]] = {
    "engine": ("auto", "tensorrt", "tensorrt_rtx", "reference"),
    "precision": ("model", "fp32", "tf32", "fp16", "bf16", "int8"),
    "on_build_failure": ("fallback", "bisect", "raise"),
    "partition": ("all", "measured"),
    "self_check": ("auto", "off", "raise"),
    "cache_trust": ("owner", "anyone"),
    "check_weights": ("versions", "contents"),
}
_MOST = 2**31 - 1
_MOST_BYTES = 2**63 - 1
"""The largest number, and number of bytes, that TensorRT and the operating system accept."""
_MOST_SECONDS = 30 * 24 * 3600
"""The longest timeout that locks accept on all systems."""
_WHOLE_NUMBERS: dict[str, tuple[int, int]] = {
    "min_cluster_size": (1, _MOST),
    "optimization_level": (0, 5),
    "most_images": (1, _MOST),
    "slots": (1, _MOST),
}
_WHOLE_NUMBERS_OR_NONE: dict[str, tuple[int, int]] = {
    "max_growth": (1, _MOST),
    "fuel": (0, _MOST),
    "cache_limit_bytes": (1, _MOST_BYTES),
    "workspace_bytes": (1, _MOST_BYTES),
}
_SHORT_NAMES = {
    "qint8": "int8",
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
}
_LISTS = (
    *("keep_fp32", "keep_fp16", "quantize", "whitelist", "blacklist"),
    *("compute_capabilities", "tactic_sources"),
)
_BUILD_FIELDS = (
    "precision",
    "keep_fp32",
    "optimization_level",
    "workspace_bytes",
    "tactic_sources",
    "compute_capabilities",
    "most_images",
)
_OF_COMPONENTS = (
    "precision",
    "min_cluster_size",
    "optimization_level",
    "workspace_bytes",
    "tactic_sources",
)


def _default_cache_dir() -> Path | None:
    """Return the user's cache folder, or None without a variable for it and without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # its specification says that relative paths are ignored
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # the system has no entry for the user, as in containers
            log.warning("there is no home folder, so no plans are kept: set FXTRT_CACHE_DIR")
            return None
    return base / "fxtrt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a compilation.

    engine:               "auto" takes tensorrt, then tensorrt_rtx where it supports the GPU, then
                          reference, which is for checking and not for speed.
    precision:            the types that engines compute in; their inputs and outputs keep the
                          model's dtypes. "model": the model's own dtypes. "tf32": the same, but
                          float32 products round their inputs to TF32. "fp32": float32, where the
                          model has half types too. "fp16", "bf16": float32 convolutions and
                          matrix products, and what lies between them, are computed in that type.
                          All else (softmax, statistics of norms, exp and log of boxes) stays as it
                          is, and so does a call whose weights or scalars that type cannot hold,
                          which the report names. "int8": convolutions and linear layers are
                          computed in int8, with scales from `calibration`, and all else as with
                          "fp16". So are the first convolution, the last layers (box predictors, and
                          what else reaches the outputs without another product), and what int8
                          cannot hold: the report names them.
    keep_fp32:            patterns, as in `blacklist`, of what "fp16", "bf16" and "int8" leave as it
                          is.
    keep_fp16:            patterns, as in `blacklist`, of what "int8" computes as "fp16" does.
    quantize:             patterns, as in `blacklist`, of first and last layers that "int8" computes
                          in int8 all the same.
    calibration_table:    the JSON file that `fxtrt.compile` writes the scales of a calibration to,
                          and reads them from where it gets no `calibration`; torch.compile only
                          reads it. None looks for the latest scales of the same graph in
                          `cache_dir`.
    min_cluster_size:     the fewest compute nodes that are worth an engine. Weights, views and
                          casts do not count.
    whitelist, blacklist: patterns (with *, ? and [abc]) of op ("aten.relu"), overload
                          ("aten.relu.default"), node name or module path ("roi_heads.*"). What
                          `blacklist` names stays in PyTorch. What `whitelist` names uses its
                          converter even if that is opt-in, and its cluster is exempt from
                          `min_cluster_size` and from losing to PyTorch. `fxtrt.compile` refuses an
                          entry that names nothing. torch.compile shows its graphs one by one, so
                          there each graph that an entry does not match is logged, at level INFO.
    components:           options of parts of the model, by patterns as in `blacklist`, as
                          {"roi_heads.mask_head": {"precision": "fp32"}}. A part has engines of its
                          own and is cut off from the rest at its boundary, even if it has no
                          options; the first pattern that names a node counts. Its options are
                          precision, min_cluster_size, optimization_level, workspace_bytes and
                          tactic_sources; all others are the model's.
    partition:            "all" gives engines all that they can run. "measured" times each cluster
                          as an engine and in PyTorch, with the copies at its boundary, and keeps
                          the engine only where it is faster. The times are kept in `cache_dir`.
                          `fxtrt.compile` measures on its example inputs; torch.compile hands over
                          none, so floats are random and integers are zero there.
    self_check:           whether each new engine runs once on values and is compared with PyTorch.
                          "auto" checks engines of TensorRT. A node with which an engine answers
                          wrongly stays in PyTorch, and the rest is built again. "raise" raises an
                          error instead, and checks the engine reference too. "off" checks nothing.
                          `fxtrt.compile` checks on its example inputs; torch.compile makes values
                          up, as for `partition`. What was found is kept in `cache_dir`, and a plan
                          from there is not checked again.
    fuel:                 the most clusters to convert, counted from the first one of the model
                          (through torch.compile: of each graph). Halving it leads to a cluster that
                          answers wrongly; `fxtrt bisect` does so by itself. None converts all.
    max_growth:           the upper bound that a dynamic size without one gets, as a multiple of the
                          example's. Larger inputs are compiled again by torch.compile, and run in
                          PyTorch after `fxtrt.compile`. None gives no bound: TensorRT, which needs
                          one, leaves such nodes to PyTorch.
    most_images:          the most images that the core of a detector takes at once, or the
                          example's number of images if that is more. A call with more images runs
                          the core several times. A larger number serves batches faster. The
                          scratch memory of each slot grows with it, and engines are tuned twice:
                          for the example, and for that many images.
    on_build_failure:     what becomes of a cluster that does not build. "fallback" runs the nodes
                          that TensorRT's error names in PyTorch, and builds the rest again, up to 8
                          times. Where it names none, a cluster with more than 1 % of the graph's
                          FLOPs is halved as by "bisect", and a smaller one stays in PyTorch whole.
                          "bisect" always looks for the smallest set of nodes that fails, with at
                          most 33 more builds of parts. After 12 rounds of builds, what still fails
                          stays in PyTorch. "raise" raises the error.
    cache_dir:            the folder that keeps plans between runs. None keeps none, which is also
                          the default where there is no home folder. If the folder has other files
                          in it, the plans are in its subfolder `fxtrt`.
    cache_limit_bytes:    the most bytes that this user's plans take together, those being written
                          included: the least recently used ones are removed. None sets no limit.
    cache_trust:          whose plans run, since a plan is code to TensorRT. "owner": those in files
                          and folders that belong to this user or root, and that no others may write
                          to. "anyone": all, with a warning for each that "owner" would refuse.
    optimization_level:   the effort of TensorRT's builder, 0 to 5.
    workspace_bytes:      the most scratch memory that TensorRT may use; None lets it use all of the
                          GPU's.
    tactic_sources:       names of `trt.TacticSource`; None leaves TensorRT's own choice.
    compute_capabilities: the GPUs to build for, as ("sm86", "sm120"); tensorrt_rtx only. Empty
                          builds for all that it supports.
    check_weights:        how calls notice that weights were written to since they were compiled.
                          "versions": by PyTorch's version counters, and by the steps of optimizers.
                          "contents": also by a checksum of all weights at each call, which sees
                          writes from outside of PyTorch, and reads all weights once.
    slots:                the most calls that may be in engines at once. Each holds a slot
                          (execution contexts, scratch memory, a CUDA stream). Slots are made when
                          needed.
    slot_timeout:         the seconds that a call waits for a slot before it raises `SlotTimeout`.
    cuda_graphs:          whether to replay what a CUDA graph can hold: the whole model, or else its
                          engines. Each slot records a shape at its second call. None records the
                          cores of detectors only.
    """

    engine: str = "auto"
    precision: str = "model"
    keep_fp32: tuple[str, ...] = ()
    keep_fp16: tuple[str, ...] = ()
    quantize: tuple[str, ...] = ()
    calibration_table: Path | None = None
    min_cluster_size: int = 3
    whitelist: tuple[str, ...] = ()
    blacklist: tuple[str, ...] = ()
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    partition: str = "all"
    self_check: str = "auto"
    fuel: int | None = None
    max_growth: int | None = None
    most_images: int = 1
    on_build_failure: str = "fallback"
    cache_dir: Path | None = field(default_factory=_default_cache_dir)
    cache_limit_bytes: int | None = 20 << 30
    cache_trust: str = "owner"
    optimization_level: int = 3
    workspace_bytes: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    compute_capabilities: tuple[str, ...] = ()
    check_weights: str = "versions"
    slots: int = 4
    slot_timeout: float = 60.0
    cuda_graphs: bool | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _require_choice(name, getattr(self, name), choices)
        for name in _LISTS:
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        for name, (low, high) in _WHOLE_NUMBERS.items():
            _require_int(name, getattr(self, name), low, high)
        for name, (low, high) in _WHOLE_NUMBERS_OR_NONE.items():
            if getattr(self, name) is not None:
                _require_int(name, getattr(self, name), low, high)
        _require_seconds("slot_timeout", self.slot_timeout)
        if not isinstance(self.cuda_graphs, bool | None):
            raise SettingsError(
                f"cuda_graphs must be True, False or None, not {self.cuda_graphs!r}"
            )
        for name in ("cache_dir", "calibration_table"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _folder(name, getattr(self, name)))
        object.__setattr__(self, "components", self._checked_components())

    @classmethod
    def of(
        cls, settings: Settings | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return `settings`, or else those of the environment, with `overrides` by field name.

        Raises:
            SettingsError: a name does not exist (the message has the nearest one), or a value is
                wrong.
        """
        known = [f.name for f in fields(cls)]
        if not isinstance(overrides, Mapping | None):
            raise SettingsError(f"options must be a dict by their names, not {overrides!r}")
        overrides = overrides or {}
        for name in overrides:
            if name not in known:
                raise SettingsError(f"there is no option {name!r}{_nearest(str(name), known)}")
        if settings is None:
            return cls(**(_environment() | dict(overrides)))
        if not isinstance(settings, Settings):
            raise SettingsError(f"settings must be fxtrt.Settings or None, not {settings!r}")
        return replace(settings, **overrides)

    @classmethod
    def from_env(cls) -> Settings:
        """Return the defaults, with the values of variables of the environment in their place.

        These are FXTRT_ENGINE, FXTRT_PRECISION, FXTRT_CACHE_DIR and FXTRT_CACHE_TRUST. An empty
        variable counts as not set.
        """
        return cls(**_environment())

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that must each match a node of the model."""
        lists = (self.whitelist, self.blacklist, self.keep_fp32, self.keep_fp16, self.quantize)
        return (*(entry for entries in lists for entry in entries), *self.components)

    def of_component(self, name: str) -> Settings:
        """Return these settings with the options of one of `components`."""
        return replace(self, components={}, **self.components[name])

    def _checked_components(self) -> dict[str, dict[str, Any]]:
        """Return validated copies of the options of components."""
        if not isinstance(self.components, Mapping):
            raise SettingsError(f"components must be a dict, not {self.components!r}")
        checked = {}
        for name, options in self.components.items():
            if not isinstance(name, str) or not isinstance(options, Mapping):
                raise SettingsError(
                    f"components must hold a dict of options for each pattern, not {options!r} "
                    f"for {name!r}"
                )
            for option in options:
                if option not in _OF_COMPONENTS:
                    nearest = _nearest(str(option), _OF_COMPONENTS)
                    raise SettingsError(f"a component has no option {option!r}{nearest}")
            try:
                own = replace(self, components={}, **options)
            except SettingsError as error:
                raise SettingsError(f"component {name!r}: {error}") from error
            checked[name] = {option: getattr(own, option) for option in options}
        return checked

    def build_digest(self) -> str:
        """Return a digest of the settings that change what TensorRT builds."""
        values = {name: getattr(self, name) for name in _BUILD_FIELDS}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _environment() -> dict[str, Any]:
    names = ("engine", "precision", "cache_dir", "cache_trust")
    values = {name: os.environ.get(f"FXTRT_{name.upper()}") for name in names}
    return {name: value for name, value in values.items() if value}


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise SettingsError(
            f"{name} must be one of {', '.join(choices)}, not {value!r}"
            f"{_nearest(_SHORT_NAMES.get(str(value), str(value)), choices)}"
        )


def _require_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _require_seconds(name: str, value: object) -> None:
    # The comparison also refuses nan and infinity, which locks do not accept.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= _MOST_SECONDS:  # type: ignore[operator]  # a number
        raise SettingsError(
            f"{name} must be a number of seconds above 0 and at most {_MOST_SECONDS}, not {value!r}"
        )


def _folder(name: str, value: object) -> Path:
    """Return an absolute path, which stays the same when the process changes its folder."""
    if not isinstance(value, (str, os.PathLike)):
        raise SettingsError(f"{name} must be a path or None, not {value!r}")
    try:
        text = os.fspath(value)
        if not isinstance(text, str) or not text or b"\0" in os.fsencode(text):
            raise ValueError("a path is a string that is not empty and has no null character")
        return Path(text).expanduser().absolute()
    except (
        ValueError,
        RuntimeError,
        OSError,
    ) as error:  # there is no such user, or no current folder
        raise SettingsError(f"{name} cannot be {value!r}: {error}") from error


def _strings(name: str, value: object) -> tuple[str, ...] | None:
    if value is None and name == "tactic_sources":
        return None
    if isinstance(value, str) or not isinstance(value, (tuple, list, set, frozenset)):
        raise SettingsError(f"{name} must be a sequence of strings, not {value!r}")
    if wrong := [entry for entry in value if not isinstance(entry, str)]:
        raise SettingsError(f"{name} must hold strings only, not {wrong[0]!r}")
    # The order of a set differs between processes.
    return tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f": did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


class Options(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments, with all types that they accept."""

    engine: Literal["auto", "tensorrt", "tensorrt_rtx", "reference"]
    precision: Literal["model", "fp32", "tf32", "fp16", "bf16", "int8"]
    keep_fp32: Sequence[str] | Set[str]
    keep_fp16: Sequence[str] | Set[str]
    quantize: Sequence[str] | Set[str]
    calibration_table: str | os.PathLike[str] | None
    min_cluster_size: int
    whitelist: Sequence[str] | Set[str]
    blacklist: Sequence[str] | Set[str]
    components: Mapping[str, Mapping[str, Any]]
    partition: Literal["all", "measured"]
    self_check: Literal["auto", "off", "raise"]
    fuel: int | None
    max_growth: int | None
    most_images: int
    on_build_failure: Literal["fallback", "bisect", "raise"]
    cache_dir: str | os.PathLike[str] | None
    cache_limit_bytes: int | None
    cache_trust: Literal["owner", "anyone"]
    optimization_level: int
    workspace_bytes: int | None
    tactic_sources: Sequence[str] | None
    compute_capabilities: Sequence[str]
    check_weights: Literal["versions", "contents"]
    slots: int
    slot_timeout: float
    cuda_graphs: bool | None
