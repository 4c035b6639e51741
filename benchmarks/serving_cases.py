"""Names the ways to serve a detector that the serving benchmark compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["BASELINE", "CASES", "GROUPS", "ServingCase", "cases_of"]

BASELINE = ("eager-one-thread", "eager-pool")
"""Eager as it is served without a server of its own: on the default stream, image by image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingCase:
    """One way to serve.

    key:       what the command line calls it.
    side:      what runs the model: "eager", "inductor" or "fxtrt".
    workers:   the threads that call the model; of fxtrt, its slots too.
    max_batch: the most images in a call.
    max_delay: the seconds that a request may wait for others.
    graphs:    whether fxtrt records CUDA graphs.
    pool:      whether a plain pool of threads calls the model, all on the default stream and image
               by image, in place of a server.
    http:      whether requests come over HTTP, from other processes.
    form:      what clients send: "float", "uint8" or "jpeg".
    """

    key: str
    side: str
    workers: int = 1
    max_batch: int = 1
    max_delay: float = 0.0
    graphs: bool = False
    pool: bool = False
    http: bool = False
    form: str = "float"


def _fxtrt(key: str, **fields: object) -> ServingCase:
    return ServingCase(key=key, side="fxtrt", **fields)  # type: ignore[arg-type]  # fields of it


_MAIN = (
    ServingCase(key="eager-one-thread", side="eager", pool=True),
    ServingCase(key="eager-pool", side="eager", workers=4, pool=True),
    _fxtrt("fxtrt-2-batched-graphs", workers=2, max_batch=8, graphs=True),
    _fxtrt("http-jpeg", workers=2, max_batch=8, graphs=True, http=True, form="jpeg"),
)
_OTHER_EAGER = (
    ServingCase(key="eager-streams", side="eager", workers=4),
    ServingCase(key="eager-batched", side="eager", max_batch=8),
    ServingCase(key="inductor", side="inductor", workers=1),
)
_SLOTS = tuple(
    _fxtrt(
        f"fxtrt-{slots}{'-batched' if batch > 1 else ''}{'-graphs' if graphs else ''}",
        workers=slots,
        max_batch=batch,
        graphs=graphs,
    )
    for graphs in (True, False)
    for batch in (1, 8)
    for slots in (1, 2, 4, 8)
    if (slots, batch, graphs) != (2, 8, True)
)
_FORMS = (
    _fxtrt("uint8", workers=2, max_batch=8, graphs=True, form="uint8"),
    _fxtrt("jpeg", workers=2, max_batch=8, graphs=True, form="jpeg"),
    _fxtrt("http-uint8", workers=2, max_batch=8, graphs=True, http=True, form="uint8"),
    _fxtrt("http-float", workers=2, max_batch=8, graphs=True, http=True),
)
GROUPS: Mapping[str, tuple[str, ...]] = {
    name: tuple(case.key for case in cases)
    for name, cases in (
        ("main", _MAIN),
        ("eager", _OTHER_EAGER),
        ("forms", _FORMS),
        ("slots", _SLOTS),
        ("all", (*_MAIN, *_OTHER_EAGER, *_FORMS, *_SLOTS)),
    )
}
"""The cases by the name that the command line takes for all of a kind."""

CASES: Mapping[str, ServingCase] = {
    case.key: case for case in (*_MAIN, *_OTHER_EAGER, *_FORMS, *_SLOTS)
}


def cases_of(names: Sequence[str]) -> list[ServingCase]:
    """Return the cases that the command line names, by themselves or by their group, once each."""
    keys = [key for name in names for key in GROUPS.get(name, (name,))]
    return [CASES[key] for key in dict.fromkeys(keys)]
