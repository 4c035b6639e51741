"""Holds what a graph is compiled for: an engine backend, and the settings for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..settings import Settings
from .base import EngineBackend
from .select import select

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """An engine backend with the settings that it is used with."""

    backend: EngineBackend
    settings: Settings

    @classmethod
    def of(cls, settings: Settings) -> Target:
        """Choose the backend that `settings.engine` names.

        Raises:
            EngineUnavailable: no such backend can run here; the message says what to install.
        """
        return cls(select(settings.engine), settings)

    def with_settings(self, settings: Settings) -> Target:
        """Return the same backend with other settings, such as those of a component."""
        return replace(self, settings=settings)

    def with_less_fuel(self, clusters: int) -> Target:
        """Return the target for the rest of a model after `clusters` clusters were converted."""
        fuel = self.settings.fuel
        if fuel is None:
            return self
        return self.with_settings(replace(self.settings, fuel=fuel - clusters))
