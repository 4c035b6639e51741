"""Says what a server is able to do at the moment, for probes and for people."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Health"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of a server.

    ready:         whether it takes requests.
    live:          whether it still works, or has ended as it was told to. If not, only a new
                   process helps.
    state:         "open", "draining" or "closed".
    workers:       how many threads run the model.
    workers_alive: how many of them still work.
    queued:        how many requests wait.
    running:       how many requests are in the model.
    last_success:  the seconds since the model last answered; None before it has.
    longest_run:   the seconds that the oldest batch in the model has been there.
    """

    ready: bool
    live: bool
    state: str
    workers: int
    workers_alive: int
    queued: int
    running: int
    last_success: float | None
    longest_run: float
