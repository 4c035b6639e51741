"""The options of a compilation: one frozen value, validated when it is made."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import SettingsError

__all__ = ["Settings"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "engine": ("auto", "tensorrt", "tensorrt_rtx", "reference"),
    "precision": ("model", "fp32", "tf32", "fp16", "bf16"),
    "other_sizes": ("parts", "pytorch"),
    "on_build_failure": ("fallback", "bisect", "raise"),
    "partition": ("all", "measured"),
    "check_weights": ("versions", "contents"),
}
_SHORT_NAMES = {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
_LISTS = ("keep_fp32", "whitelist", "blacklist", "compute_capabilities", "tactic_sources")
_BUILD_FIELDS = (
    "precision",
    "keep_fp32",
    "optimization_level",
    "workspace_bytes",
    "tactic_sources",
    "compute_capabilities",
)
_OF_COMPONENTS = (
    "precision",
    "min_cluster_size",
    "optimization_level",
    "workspace_bytes",
    "tactic_sources",
)


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fxtrt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to compile.

    engine:               "auto" takes tensorrt, then tensorrt_rtx where the GPU is one that it
                          supports, then reference (which is for checking, not for speed).
    precision:            what engines compute in; their inputs and outputs keep the model's dtypes.
                          "model": the model's own dtypes. "tf32": the same, but float32 products
                          round their inputs to TF32. "fp32": float32, where the model has half
                          types too. "fp16", "bf16": float32 convolutions and matrix products, and
                          what lies between them, in that type; all else (softmax, statistics of
                          norms, exp and log of boxes) as it is, and so is a call whose weights or
                          scalars that type cannot hold, which the report names.
    keep_fp32:            patterns, as in `blacklist`, of what "fp16" and "bf16" leave as it is.
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
                          own, cut off from the rest at its borders also with no options; the first
                          pattern that names a node counts. Its options are precision,
                          min_cluster_size, optimization_level, workspace_bytes and tactic_sources;
                          all others are the model's.
    partition:            "all" gives engines all that they can run. "measured" times each cluster
                          as an engine and in PyTorch, with the copies at its borders, and keeps
                          the engine only where it is faster. The figures are kept in `cache_dir`.
                          `fxtrt.compile` measures on its example inputs; torch.compile hands over
                          none, so floats are random and integers are zero there.
    fuel:                 convert at most this many clusters, the first ones of the model (through
                          torch.compile: of each graph), to find by halving one that answers
                          wrongly, as `fxtrt bisect` does by itself. None converts all.
    max_growth:           the upper bound that a dynamic size without one gets, as a multiple of
                          the example's. Larger inputs are compiled again by torch.compile, and
                          run in PyTorch after `fxtrt.compile`. None gives none: TensorRT, which
                          needs one, leaves such nodes to PyTorch.
    other_sizes:          what a detector that `fxtrt.compile` captured whole does with calls that
                          the whole graph is not for: images of other sizes, or another number of
                          them. "parts" also builds its parts (backbone, heads) with dynamic
                          heights and widths, each up to the longer side of the example's padded
                          images, or `max_growth` times that, or as the whole graph takes it, and
                          for up to `most_images` images. "pytorch" builds the whole only: half the
                          engines.
    most_images:          see `other_sizes`; the example's number of images if that is more. Scratch
                          memory grows with it. With 1, a detector whose whole graph takes images
                          of any size has no parts.
    on_build_failure:     "fallback" runs the failing cluster in PyTorch and reports it; "bisect"
                          finds the few nodes that fail, with at most 32 more builds, and keeps
                          engines for the rest; "raise".
    cache_dir:            where plans are kept between runs; None keeps none.
    cache_limit_bytes:    of the plans together: the least recently used leave. None sets no limit.
    optimization_level:   TensorRT's builder effort, 0 to 5.
    workspace_bytes:      scratch memory that TensorRT may use; None leaves it the GPU's.
    tactic_sources:       names of `trt.TacticSource`; None leaves TensorRT's own choice.
    compute_capabilities: GPUs to build for, as ("sm86", "sm120"); tensorrt_rtx only. Empty builds
                          for all that it supports.
    check_weights:        how calls notice that weights were written to since they were compiled.
                          "versions": by PyTorch's version counters, and by the steps of optimizers.
                          "contents": also by a checksum of all weights at each call, which sees
                          writes from outside of PyTorch, and reads all weights once.
    slots:                how many calls may be in engines at once: each holds a slot (execution
                          contexts, scratch memory, a CUDA stream). Slots are made when needed.
    slot_timeout:         seconds that a call waits for a slot, before `SlotTimeout`.
    cuda_graphs:          replay what a CUDA graph can hold: the whole model, or else its engines.
                          Shapes are recorded at their second call, in each slot.
    """

    engine: str = "auto"
    precision: str = "model"
    keep_fp32: tuple[str, ...] = ()
    min_cluster_size: int = 3
    whitelist: tuple[str, ...] = ()
    blacklist: tuple[str, ...] = ()
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    partition: str = "all"
    fuel: int | None = None
    max_growth: int | None = None
    other_sizes: str = "parts"
    most_images: int = 8
    on_build_failure: str = "fallback"
    cache_dir: Path | None = field(default_factory=_default_cache_dir)
    cache_limit_bytes: int | None = 20 << 30
    optimization_level: int = 3
    workspace_bytes: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    compute_capabilities: tuple[str, ...] = ()
    check_weights: str = "versions"
    slots: int = 4
    slot_timeout: float = 60.0
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _require_choice(name, getattr(self, name), choices)
        for name in _LISTS:
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        _require_int("min_cluster_size", self.min_cluster_size, 1, None)
        _require_int("optimization_level", self.optimization_level, 0, 5)
        _require_int("most_images", self.most_images, 1, None)
        _require_int("slots", self.slots, 1, None)
        _require_seconds("slot_timeout", self.slot_timeout)
        if not isinstance(self.cuda_graphs, bool):
            raise SettingsError(f"cuda_graphs must be True or False, not {self.cuda_graphs!r}")
        least = {"max_growth": 1, "fuel": 0, "cache_limit_bytes": 1, "workspace_bytes": 1}
        for name, low in least.items():
            if getattr(self, name) is not None:
                _require_int(name, getattr(self, name), low, None)
        if self.cache_dir is not None:
            if not isinstance(self.cache_dir, (str, os.PathLike)):
                raise SettingsError(f"cache_dir must be a path or None, not {self.cache_dir!r}")
            object.__setattr__(self, "cache_dir", Path(self.cache_dir).expanduser())
        object.__setattr__(self, "components", self._checked_components())

    @classmethod
    def of(
        cls, settings: Settings | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Settings:
        """`settings` (or the environment's) with `overrides` by field name.

        Raises:
            SettingsError: a name that does not exist (with the nearest one), or a bad value.
        """
        known = [f.name for f in fields(cls)]
        overrides = overrides or {}
        for name in overrides:
            if name not in known:
                raise SettingsError(f"there is no option {name!r}{_nearest(name, known)}")
        return replace(settings or cls.from_env(), **overrides)

    @classmethod
    def from_env(cls) -> Settings:
        """The defaults, with FXTRT_ENGINE, FXTRT_PRECISION and FXTRT_CACHE_DIR where set."""
        overrides = {
            name: os.environ[f"FXTRT_{name.upper()}"]
            for name in ("engine", "precision", "cache_dir")
            if f"FXTRT_{name.upper()}" in os.environ
        }
        return cls(**overrides)  # type: ignore[arg-type]  # validated in __post_init__

    @property
    def patterns(self) -> tuple[str, ...]:
        """All entries that must name nodes of the model."""
        return (*self.whitelist, *self.blacklist, *self.keep_fp32, *self.components)

    def of_component(self, name: str) -> Settings:
        """These, with the options of one of `components`."""
        return replace(self, components={}, **self.components[name])

    def _checked_components(self) -> dict[str, dict[str, Any]]:
        """Copies, with values as they are kept."""
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
        """A digest of the settings that change what TensorRT builds."""
        values = {name: getattr(self, name) for name in _BUILD_FIELDS}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(
            f"{name} must be one of {', '.join(choices)}, not {value!r}"
            f"{_nearest(_SHORT_NAMES.get(str(value), str(value)), choices)}"
        )


def _require_int(name: str, value: object, low: int, high: int | None) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not fits or (high is not None and int(value) > high):  # type: ignore[call-overload]  # it fits, so it is an int
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise SettingsError(f"{name} must be a whole number {bounds}, not {value!r}")


def _require_seconds(name: str, value: object) -> None:
    # The negation also refuses nan.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SettingsError(f"{name} must be a number of seconds above 0, not {value!r}")


def _strings(name: str, value: object) -> tuple[str, ...] | None:
    if value is None and name == "tactic_sources":
        return None
    if isinstance(value, str) or not isinstance(value, (tuple, list, set, frozenset)):
        raise SettingsError(f"{name} must be a sequence of strings, not {value!r}")
    if wrong := [entry for entry in value if not isinstance(entry, str)]:
        raise SettingsError(f"{name} must hold strings only, not {wrong[0]!r}")
    return tuple(value)


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f": did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
