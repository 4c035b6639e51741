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
  CallError           a model that was loaded without its code cannot answer a call
  AccuracyError       predictions cannot be judged
  ServingError        a server cannot answer a request
    QueueFull           too many requests wait already
    RequestTimeout      no answer came within the request's time
    ServerClosed        the server takes no more requests, or ended before it could answer
    WorkerDied          an error made the server's device or one of its threads unusable
    ProtocolError       a request over HTTP is not as the protocol says
    ImageError          bytes are no image that the server decodes

A `Rejection` (fxtrt.registry) says why a node stays in PyTorch; it is a value, never an exception.
"""

from __future__ import annotations

__all__ = [
    "AccuracyError",
    "ArtifactError",
    "BuildError",
    "CacheError",
    "CallError",
    "CaptureError",
    "ConversionError",
    "EngineError",
    "EngineUnavailable",
    "FxtrtError",
    "ImageError",
    "PassError",
    "ProtocolError",
    "QueueFull",
    "RegistrationError",
    "ReportError",
    "RequestTimeout",
    "ServerClosed",
    "ServingError",
    "SettingsError",
    "SlotTimeout",
    "WorkerDied",
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


class CallError(FxtrtError, ValueError):
    """A model that was loaded without its code cannot answer a call, such as one of other sizes."""


class AccuracyError(FxtrtError, ValueError):
    """A compiled model loses more accuracy than its gate allows, or predictions cannot be judged:
    they, or what they are compared with, do not fit the metric."""


class ServingError(FxtrtError):
    """A server cannot answer a request.

    status: the HTTP status that says the same.
    """

    status = 500


class QueueFull(ServingError):
    """So many requests wait already that the server refuses one more.

    retry_after: the seconds after which those that wait now will have been answered.
    """

    status = 503

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestTimeout(ServingError, TimeoutError):
    """No answer came within the time that a request was given."""

    status = 503


class ServerClosed(ServingError):
    """The server takes no more requests, or ended before it could answer this one."""

    status = 503


class WorkerDied(ServingError):
    """An error made the server's device, or the thread that ran the request, unusable."""


class ProtocolError(ServingError, ValueError):
    """A request over HTTP is not as the protocol says, or larger than the server takes.

    status: the HTTP status, 400 to 415.
    """

    status = 400

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ImageError(ProtocolError):
    """Bytes are no image that the server decodes.

    status: 400 for damaged images, 413 for those too large, 415 for other formats.
    """
