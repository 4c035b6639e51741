"""Select the highest values of each level by radix selection, over all levels and images at once.

Equal values are taken by rising index, as a stable sort orders them: the result is the same in each
run. `torch.topk` may order equal values otherwise, which is the only way in which results differ:
seldom in float32, often in float16. -0 equals 0, and NaN is the greatest value, as for PyTorch.

Each value becomes an unsigned key of the same order. For each 8 bits of it, from the highest down,
one launch counts the keys of each row (the map of an image and a level) that agree with the wanted
one so far by their next 8 bits; the next launch reads from the counts where the wanted key lies.
A last pass collects what is selected, and another launch sorts it by counting.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT
from .levels import odd, pick, pick_odd, same_layout

__all__ = ["best_of_levels", "level_of_chunk"]

_CHUNK = 2048
"""The number of values that a program reads."""
_COUNTED_TOGETHER = tl.constexpr(128)
"""A program sums the ties of as many earlier chunks at once."""


def best_of_levels(
    maps: Sequence[Tensor], most: int, *, by_index: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the `most` highest values of each level of each image, by falling value.

    It waits for nothing and can be recorded in a CUDA graph.

    Args:
        maps: (B, A, height, width) of each level, NCHW or channels-last, whose values count in the
            order height, width, A; or (B, n) of each level. All have one floating-point dtype of
            16 or 32 bits.
        by_index: return them by rising index instead.

    Returns:
        (B, levels, most) values, float32, and (B, levels, most) indices, int32. Where a level has
        fewer values, -inf and 0 follow them.
    """
    maps, channels_last = same_layout(maps)
    images, channels = maps[0].shape[0], maps[0].shape[1] if maps[0].dim() == 4 else 1
    levels, device = len(maps), maps[0].device
    sizes = [m.shape[1:].numel() for m in maps]
    chunks, rows = sum(triton.cdiv(n, _CHUNK) for n in sizes), images * levels
    bits = 8 * maps[0].element_size()
    if bits not in (16, 32):
        raise ValueError(f"values of {maps[0].dtype} have no radix selection: convert to float32")
    passes = bits // 8
    # The counts and the number of values collected so far, zeroed together.
    zeros = torch.zeros(rows * (passes * 256 + 1), dtype=torch.int32, device=device)
    counts, collected = zeros[rows:], zeros[:rows]
    chunk_counts = torch.empty((images, chunks, 256), dtype=torch.int32, device=device)
    selected = torch.empty((rows, most), dtype=torch.int64, device=device)
    values = torch.empty((images, levels, most), dtype=torch.float32, device=device)
    index = torch.empty((images, levels, most), dtype=torch.int32, device=device)
    if rows == 0 or most == 0:
        return values, index
    common = (maps, odd(sizes), channels, counts, chunk_counts, most, chunks, rows)
    constants = {"BITS": bits, "CHANNELS_LAST": channels_last, "CHUNK": _CHUNK, **EXACT}
    if chunks:
        for number in range(passes):
            _count_digits[chunks, images](*common, PASS=number, **constants)
        _collect[chunks, images](*common, collected, selected, **constants)
    _sort_by_counting[triton.cdiv(most, 32), rows](
        maps, odd(sizes), selected, values, index, most, BITS=bits, BY_INDEX=by_index, SLOTS=32,
        OTHERS=128, **EXACT,
    )  # fmt: skip
    return values, index


@triton.jit
def _key(x, BITS: tl.constexpr):
    """Return an unsigned key that orders as the value does."""
    value = x.to(tl.float32)
    is_nan = value != value
    if BITS == 16:
        pattern = tl.where(value == 0, 0, x.to(tl.int16, bitcast=True).to(tl.int32))
        key = tl.where(pattern >= 0, pattern, pattern ^ 0x7FFF)
        unsigned = tl.where(is_nan, 0xFFFF, key + 0x8000)
    else:
        pattern = tl.where(value == 0, 0, x.to(tl.int32, bitcast=True))
        key = tl.where(pattern >= 0, pattern, pattern ^ 0x7FFFFFFF)
        unsigned = tl.where(is_nan, 0x7FFFFFFF, key).to(tl.int64) + 0x80000000
    return unsigned.to(tl.uint32)


@triton.jit
def _value(signed_key, dtype: tl.constexpr, BITS: tl.constexpr):
    """Return the float32 value of a key of 32 bits from which 2**31 was subtracted."""
    if BITS == 16:
        key = (signed_key.to(tl.int64) + 0x80000000).to(tl.int32) - 0x8000
        pattern = tl.where(key >= 0, key, key ^ 0x7FFF)
        value = pattern.to(tl.int16).to(dtype, bitcast=True).to(tl.float32)
    else:
        pattern = tl.where(signed_key >= 0, signed_key, signed_key ^ 0x7FFFFFFF)
        value = pattern.to(tl.float32, bitcast=True)
    return value


@triton.jit
def level_of_chunk(chunk, sizes, CHUNK: tl.constexpr):
    """Return the level that a chunk belongs to, and that level's first chunk."""
    level = chunk * 0
    first = chunk * 0
    seen = chunk * 0
    for i in tl.static_range(len(sizes)):
        level = tl.where(chunk >= seen, i, level)
        first = tl.where(chunk >= seen, seen, first)
        seen += ((sizes[i] >> 1) + CHUNK - 1) // CHUNK
    return level, first


@triton.jit
def _keys_of_chunk(
    maps, level, image, number, size, channels, BITS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Return the keys of a level's chunk, their indices, and which of them exist."""
    index = number * CHUNK + tl.arange(0, CHUNK)
    exists = index < size
    place = index
    if not CHANNELS_LAST:
        place = (index % channels) * (size // channels) + index // channels
    base = pick(maps, level) + image.to(tl.int64) * size
    return _key(tl.load(base + place, mask=exists, other=0.0), BITS), index, exists


@triton.jit
def _wanted_digit(counts, wanted):
    """Return the digit of the value with the rank `wanted`, and its rank among that digit."""
    fall = 255 - tl.arange(0, 256)
    count = tl.load(counts + fall)
    through = tl.cumsum(count, 0)
    hit = (through >= wanted) & (through - count < wanted)
    return tl.sum(tl.where(hit, fall, 0), 0), wanted - tl.sum(tl.where(hit, through - count, 0), 0)


@triton.jit
def _wanted_prefix(counts, row, rows, wanted, PASSES: tl.constexpr):
    """Return the first digits of the last value to select, its rank among them, the last digit."""
    prefix = wanted * 0
    digit = wanted * 0
    for number in tl.static_range(PASSES):
        digit, wanted = _wanted_digit(counts + (number * rows + row) * 256, wanted)
        prefix = prefix * 256 + digit
    return prefix, wanted, digit


@triton.jit(do_not_specialize=["channels", "most", "chunks", "rows"])
def _count_digits(
    maps, sizes, channels, counts, chunk_counts, most, chunks, rows, PASS: tl.constexpr,
    BITS: tl.constexpr, CHANNELS_LAST: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Count the digits number `PASS` of the keys that share all wanted digits before it."""
    chunk = tl.program_id(0)
    image = tl.program_id(1)
    level, first = level_of_chunk(chunk, sizes, CHUNK)
    size = pick_odd(sizes, level)
    row = image * len(sizes) + level
    prefix, _, _ = _wanted_prefix(counts, row, rows, tl.minimum(most, size), PASS)
    key, _, candidate = _keys_of_chunk(
        maps, level, image, chunk - first, size, channels, BITS, CHANNELS_LAST, CHUNK
    )
    if PASS > 0:
        candidate = candidate & ((key >> (BITS - 8 * PASS)) == prefix.to(tl.uint32))
    digit = ((key >> (BITS - 8 * PASS - 8)) & 255).to(tl.int32)
    count = tl.histogram(digit, 256, mask=candidate)
    bins = tl.arange(0, 256)
    tl.atomic_add(counts + (PASS * rows + row) * 256 + bins, count, mask=count > 0, sem="relaxed")
    if PASS == BITS // 8 - 1:
        tl.store(chunk_counts + (image * chunks + chunk) * 256 + bins, count)


@triton.jit(do_not_specialize=["channels", "most", "chunks", "rows"])
def _collect(
    maps, sizes, channels, counts, chunk_counts, most, chunks, rows, collected, selected,
    BITS: tl.constexpr, CHANNELS_LAST: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write each selected value as one integer, key before index, in any order."""
    chunk = tl.program_id(0)
    image = tl.program_id(1)
    level, first = level_of_chunk(chunk, sizes, CHUNK)
    size = pick_odd(sizes, level)
    row = image * len(sizes) + level
    last, left, digit = _wanted_prefix(counts, row, rows, tl.minimum(most, size), BITS // 8)
    key, index, exists = _keys_of_chunk(
        maps, level, image, chunk - first, size, channels, BITS, CHANNELS_LAST, CHUNK
    )
    last = last.to(tl.uint32, bitcast=True)
    tie = (exists & (key == last)).to(tl.int32)
    # Ties are taken by rising index, so those of the level's earlier chunks go before.
    before = chunk * 0
    for start in range(first, chunk, _COUNTED_TOGETHER):
        earlier = start + tl.arange(0, _COUNTED_TOGETHER)
        place = chunk_counts + (image * chunks + earlier) * 256 + digit
        before += tl.sum(tl.load(place, mask=earlier < chunk, other=0), 0)
    is_early = before + tl.cumsum(tie, 0) - tie < left
    taken = ((exists & (key > last)) | ((tie == 1) & is_early)).to(tl.int32)
    total = tl.sum(taken, 0)
    if total > 0:
        start = tl.atomic_add(collected + row, total, sem="relaxed")
        slot = start + tl.cumsum(taken, 0) - taken
        both = ((key.to(tl.int64) - 0x80000000) << 32) | (0x7FFFFFFF - index).to(tl.int64)
        tl.store(selected + row.to(tl.int64) * most + slot, both, mask=taken == 1)


@triton.jit(do_not_specialize=["most"])
def _sort_by_counting(
    maps, sizes, selected, values, indices, most, BITS: tl.constexpr, BY_INDEX: tl.constexpr,
    SLOTS: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Write each selected value to the place that the number of those before it gives it."""
    row = tl.program_id(1)
    count = tl.minimum(most, pick_odd(sizes, row % len(sizes)))
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    base = selected + row.to(tl.int64) * most
    mine = tl.load(base + slot, mask=slot < count, other=0)
    place = tl.zeros([SLOTS], tl.int32)
    for start in range(0, count, OTHERS):
        other = start + tl.arange(0, OTHERS)
        # No key with an index is as low as this.
        theirs = tl.load(base + other, mask=other < count, other=-0x7FFFFFFFFFFFFFFF)
        if BY_INDEX:  # The lower half alone is greater the lower the index is.
            before = (theirs & 0xFFFFFFFF)[None, :] > (mine & 0xFFFFFFFF)[:, None]
        else:
            before = theirs[None, :] > mine[:, None]
        place += tl.sum(before.to(tl.int32), 1)
    padding = slot >= count
    value = _value((mine >> 32).to(tl.int32), maps[0].dtype.element_ty, BITS)
    target = row.to(tl.int64) * most + tl.where(padding, slot, place)
    tl.store(values + target, tl.where(padding, float("-inf"), value), mask=slot < most)
    index = (0x7FFFFFFF - (mine & 0xFFFFFFFF)).to(tl.int32)
    tl.store(indices + target, tl.where(padding, 0, index), mask=slot < most)
