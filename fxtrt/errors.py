"""The exceptions that fxtrt raises.

FxtrtError
  SettingsError       an option that does not exist, or a value that it does not take
  RegistrationError   a converter that does not fit its operator's schema
  CaptureError        a model or graph that could not become functional ATen
  PassError           a pass that failed or left a broken graph
  ConversionError     a node that could not become TensorRT layers
  EngineError         an engine that could not be used
    BuildError          TensorRT built no plan
    EngineUnavailable   no such engine on this machine
  SlotTimeout         a request that waited too long for a slot
  CacheError          a cache file that is damaged or is not ours, or a folder that is no cache
  ReportError         a file that is no report, or one of another version
  ArtifactError       a compiled model that cannot be saved, or a file that does not fit the model

A `Rejection` (fxtrt.registry) says why a node stays in PyTorch; it is a value, never an exception.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BuildError",
    "CacheError",
    "CaptureError",
    "ConversionError",
    "EngineError",
    "EngineUnavailable",
    "FxtrtError",
    "PassError",
    "RegistrationError",
    "ReportError",
    "SettingsError",
    "SlotTimeout",
]


class FxtrtError(Exception):
    """Base of every error that fxtrt raises on purpose."""


class SettingsError(FxtrtError, ValueError):
    """An option that does not exist, or a value that it does not take."""


class RegistrationError(FxtrtError):
    """A converter that does not fit its operator's schema."""


class CaptureError(FxtrtError):
    """A model or graph that could not become functional ATen."""


class PassError(FxtrtError):
    """A pass that failed, or that left a graph which does not lint."""


class ConversionError(FxtrtError):
    """A node that could not become TensorRT layers."""


class EngineError(FxtrtError):
    """An engine that could not be used."""


class BuildError(EngineError):
    """TensorRT built no plan for a network."""


class EngineUnavailable(EngineError):
    """The engine asked for does not exist on this machine, or refuses its GPU."""


class SlotTimeout(FxtrtError, TimeoutError):
    """A request waited too long for one of a model's slots."""


class CacheError(FxtrtError):
    """A cache file that is damaged, or that fxtrt did not write; or a folder of other files."""


class ReportError(FxtrtError):
    """A file that is no report of fxtrt's, or one of a version that it does not read."""


class ArtifactError(FxtrtError):
    """A compiled model that cannot be saved; or a file that is damaged, or not of this model."""
