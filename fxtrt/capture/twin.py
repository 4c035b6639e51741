"""Turns a model into a copy with new modules that share its tensors."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import torch

from ..errors import CaptureError, FxtrtError
from .reachable import reachable

__all__ = ["require_module", "twin_of"]

log = logging.getLogger(__name__)


def require_module(model: Any) -> None:
    """Refuse an object that is no module, or a module that is compiled, wholly or in part.

    Raises:
        CaptureError: one of these; the message says what to pass instead.
    """
    if not isinstance(model, torch.nn.Module):
        kind = "a class" if isinstance(model, type) else f"of type {type(model).__name__}"
        raise CaptureError(
            f"fxtrt compiles a torch.nn.Module, and {model!r} is {kind}: call it in the forward of "
            f'a module and pass that one, or use torch.compile(function, backend="fxtrt")'
        )
    for path, module in model.named_modules():
        name = f"{path or 'the model'} ({type(module).__name__})"
        if isinstance(module, torch._dynamo.OptimizedModule):
            raise CaptureError(
                f"{name} was compiled by torch.compile already: use the module that it was made "
                f"from instead, which is its attribute _orig_mod"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(
                f"{name} is a ScriptModule, whose code fxtrt cannot see: use the torch.nn.Module "
                f"instead that it was scripted or traced from"
            )


def twin_of(model: torch.nn.Module) -> torch.nn.Module:
    """Return a deep copy of the modules that shares every parameter and buffer with `model`.

    Objects that cannot be copied, such as locks and open files, are shared too.

    Raises:
        CaptureError: another object cannot be copied.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for value in reachable(model):
        if isinstance(value, torch.Tensor):
            if not value.is_leaf:
                # This is a kept activation. deepcopy refuses tensors with a history, which is no
                # part of the model.
                shared.setdefault(id(value), value.detach().clone())
        elif _is_unique(value):
            shared[id(value)] = value
    try:
        twin = copy.deepcopy(model, shared)
    except FxtrtError:  # A compiled model says by itself that it cannot be copied.
        raise
    except Exception as error:  # Each object may refuse with an exception of its own.
        raise CaptureError(
            f"{type(model).__name__} cannot be copied by copy.deepcopy, which compiling needs: "
            f"{error}. Take the attribute that it is about off the model, or give its class a "
            f"__deepcopy__"
        ) from error
    # The copy of a GraphModule is in training mode.
    for path, module in twin.named_modules():
        module.training = model.get_submodule(path).training
    return twin


def _is_unique(value: Any) -> bool:
    """Return whether an object refuses to be pickled, as locks, files and generators do."""
    if isinstance(value, torch.nn.Module) or hasattr(value, "__deepcopy__"):
        return False
    try:
        value.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
    except TypeError:
        return True
    except Exception:
        log.debug("%s is not pickled", type(value).__name__, exc_info=True)
    return False
