"""Keeps tables of scales in the cache folder, and finds them again."""

from __future__ import annotations

import logging
import time

import torch

from ..cache.engine_key import EngineKey
from ..cache.plan_file import PlanHeader
from ..cache.store import PlanCache
from ..errors import SettingsError
from ..settings import Settings
from .scale_table import ScaleTable

__all__ = ["find_table", "keep_table"]

log = logging.getLogger(__name__)

KIND = "scale"


def find_table(settings: Settings, key: EngineKey) -> ScaleTable | None:
    """Return the table stored under `key`, or None; a damaged one is logged and counts as none."""
    cache = PlanCache.of(settings, KIND)
    stored = None if cache is None else cache.get(key)
    if stored is None:
        return None
    try:
        return ScaleTable.from_json(stored.plan, f"the stored table {key.digest:.16}")
    except SettingsError as error:
        log.warning("%s", error)
        return None


def keep_table(settings: Settings, key: EngineKey, table: ScaleTable) -> None:
    """Keep a table under `key`, atomically and with a checksum, as plans are kept."""
    cache = PlanCache.of(settings, KIND)
    if cache is not None:
        header = PlanHeader(
            engine="calibration",
            runs_on=f"{len(table.scales)} scales",
            modules="",
            nodes=len(table.scales),
            torch=torch.__version__,
            created=time.time(),
        )
        cache.put(key, table.to_json().encode(), header)
