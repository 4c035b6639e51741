"""Define the exceptions that fxtrt raises.

FxtrtError
  SettingsError       an option does not exist, or does not take the value
  RegistrationError   a converter does not fit its operator's schema
  CaptureError        a model or graph could not become functional ATen
  PassError           a pass failed, or left a broken graph
  ConversionError     a node could not become TensorRT layers
  EngineError         an engine could not be used
    BuildError          TensorRT built no plan
    EngineUnavailable   the engine does not exist on this machine
  SlotTimeout         a request waited too long for a slot
  CacheError          a cache file is damaged or foreign, or a folder is no cache
  ReportError         a file is no report, or one of another version
  ArtifactError       a compiled model cannot be saved, or a file does not fit the model
  AccuracyError       predictions cannot be judged

A `Rejection` (fxtrt.registry) says why a node stays in PyTorch; it is a value, never an exception.
"""

from __future__ import annotations

__all__ = [
    "AccuracyError",
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
    """The base of every error that fxtrt raises on purpose."""


class SettingsError(FxtrtError, ValueError):
    """An option does not exist, or does not take the value."""


class RegistrationError(FxtrtError):
    """A converter does not fit its operator's schema."""


class CaptureError(FxtrtError):
    """A model or graph could not become functional ATen."""


class PassError(FxtrtError):
    """A pass failed, or left a graph that does not lint."""


class ConversionError(FxtrtError):
    """A node could not become TensorRT layers.

    node: the name of the node, or "" if the error is about an input of the engine.
    """

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(message)
        self.node = node


class EngineError(FxtrtError):
    """An engine could not be used."""


class BuildError(EngineError):
    """TensorRT built no plan for a network."""


class EngineUnavailable(EngineError):
    """The requested engine does not exist on this machine, or does not support its GPU."""


class SlotTimeout(FxtrtError, TimeoutError):
    """A request waited too long for one of a model's slots."""


class CacheError(FxtrtError):
    """A cache file is damaged or was not written by fxtrt, or a folder holds other files."""


class ReportError(FxtrtError):
    """A file is no report of fxtrt, or has a version that this fxtrt does not read."""


class ArtifactError(FxtrtError):
    """A compiled model cannot be saved, or a file is damaged or belongs to another model."""


class AccuracyError(FxtrtError, ValueError):
    """A compiled model loses more accuracy than its gate allows, or predictions cannot be judged:
    they, or what they are compared with, do not fit the metric."""
