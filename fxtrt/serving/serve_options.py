"""Holds what `fxtrt serve` was asked for, and makes the file, its server and its HTTP of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..settings import Settings
from .http import HttpSettings
from .pictures import Pictures
from .served_file import ServedFile, open_file
from .server import Server
from .tuned_file import tuned_settings

__all__ = ["ServeOptions"]

log = logging.getLogger(__name__)

_OF_SERVER = ("max_batch", "max_delay", "queue_size", "timeout")
_OF_PICTURES = ("channels", "resize", "mean", "std")
_OF_MODEL = ("engine", "slots")
_OF_TUNED_MODEL, _OF_TUNED_SERVER = ("slots", "cuda_graphs"), ("max_batch", "max_delay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of a process that serves a file. None leaves what the file or `Server` says.

    path:        the file.
    name:        the model's name in URLs and metrics; by default the file's without its suffix.
    verify:      whether the file must answer its example as when it was saved.
    rebuild:     whether engines that do not run here are built again.
    tuned:       whether what `fxtrt tune` has chosen for this machine is used for what is None.
    show_images: whether the page shows the last images with their detections.

    All others are settings of the compiled model, of `Server` and of `Pictures`.
    """

    path: str
    name: str | None = None
    verify: bool = True
    rebuild: bool = False
    tuned: bool = True
    engine: str | None = None
    slots: int | None = None
    max_batch: int | None = None
    max_delay: float | None = None
    queue_size: int | None = None
    timeout: float | None = None
    channels: str | None = None
    resize: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    show_images: bool = False

    def __post_init__(self) -> None:
        Settings.of(None, self._given(_OF_MODEL))  # before a file is loaded, which takes a while

    @property
    def model_name(self) -> str:
        return self.name or Path(self.path).stem

    def open(self) -> ServedFile:
        """Load the file, answer its example and warm it up; errors are those of `open_file`."""
        options: Any = self.chosen(*_OF_TUNED_MODEL) | self._given(_OF_MODEL)
        served = open_file(self.path, verify=self.verify, rebuild=self.rebuild, **options)
        return replace(served, pictures=self._pictures(served.pictures))

    def server(self, served: ServedFile) -> Server:
        """Start to serve an opened file."""
        chosen = {"max_batch": served.max_batch, **self.chosen(*_OF_TUNED_SERVER)}
        given = chosen | self._given(_OF_SERVER)
        return Server(served.model, name=self.model_name, **given)

    def http(self, served: ServedFile) -> HttpSettings:
        """Return the settings of HTTP over a server of an opened file."""
        return HttpSettings(prepare=served.pictures, recent_images=6 if self.show_images else 0)

    def _pictures(self, pictures: Pictures) -> Pictures:
        return replace(pictures, **self._given(_OF_PICTURES))

    def chosen(self, *names: str) -> dict[str, Any]:
        """Return those of the settings of these names that `fxtrt tune` has chosen."""
        engine: Any = self._given(("engine",))
        found = tuned_settings(self.path, engine) if self.tuned else "it is not asked for"
        if isinstance(found, str):
            log.info("%s", found)
            return {}
        return {name: found[name] for name in names}

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}
