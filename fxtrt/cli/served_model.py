"""Declares the options of all commands that serve a file: its engine, its check, its pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import SIZE

__all__ = ["served_model"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--slots", type=click.IntRange(1), help="The most calls in engines at once."),
    click.option(
        "--engine", help="auto, tensorrt, tensorrt_rtx or reference; by default the file's."
    ),
    click.option(
        "--rebuild",
        is_flag=True,
        help="Build the engines again where those in the file are for another GPU or version.",
    ),
    click.option(
        "--no-verify",
        "verify",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Serve the file even if it answers its example otherwise than when it was saved.",
    ),
    click.option(
        "--no-tuned",
        "tuned",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Do not take slots, batches, delay and CUDA graphs from what fxtrt tune wrote.",
    ),
    click.option(
        "--channels",
        type=click.Choice(["rgb", "bgr"]),
        help="The order of colours that the model takes; by default bgr for Detectron2, else rgb.",
    ),
    click.option(
        "--resize",
        type=SIZE,
        help="For Detectron2, the shorter side of resized pictures and the limit of the longer "
        "one, by default 800x1333; for a classifier of any size, height and width.",
    ),
    click.option(
        "--mean",
        type=(float, float, float),
        help="For a classifier, what to subtract from values from 0 to 1.",
    ),
    click.option(
        "--std",
        type=(float, float, float),
        help="For a classifier, what to divide them by then.",
    ),
)


def served_model(command: _Command) -> _Command:
    """Give a command the options, by the names that `ServeOptions` has for them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
