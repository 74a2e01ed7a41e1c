"""GrowthBook's hash, version 2: which of 10,000 buckets a user falls into.

FNV-1a, 32 bit (Fowler, Noll, Vo), applied twice. Characters are hashed as UTF-16 code units, each XORed
whole, as the JavaScript SDK does, so that Chinese and emoji ids get the same bucket everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["BUCKETS", "bucket", "bucket_after", "code_units", "fnv1a32"]

BUCKETS: Final = 10_000
OFFSET_BASIS: Final = 0x811C9DC5
PRIME: Final = 0x01000193

# The upper bits never reach the lower ones, so they may be cut off once at the end. For short texts that is faster than
# after each unit; for long ones the numbers would grow without bound.
_SHORT: Final = 40

_UTF16: Final = f"utf-16-{'le' if sys.byteorder == 'little' else 'be'}"


def code_units(text: str) -> Sequence[int]:
    """Return the UTF-16 code units of a text; lone surrogates stand for themselves."""
    if text.isascii():
        return text.encode()
    return memoryview(text.encode(_UTF16, "surrogatepass")).cast("H")


def fnv1a32(units: Iterable[int], state: int = OFFSET_BASIS) -> int:
    """Return the 32-bit FNV-1a state after `units`, starting from `state` (so a common prefix is hashed once)."""
    for unit in units:
        state = (state ^ unit) * 0x01000193 & 0xFFFFFFFF
    return state


def bucket(seed: str, user_id: str) -> int:
    """Return the bucket, 0 to 9,999, of `user_id` under `seed`.

    `bucket = fnv1a32(str(fnv1a32(seed + user_id))) % 10_000` (GrowthBook, hash version 2).
    """
    return bucket_after(fnv1a32(code_units(seed)), user_id)


def bucket_after(state: int, user_id: str) -> int:
    """Return the bucket, 0 to 9,999, of `user_id` where `state` is the FNV-1a state after the seed."""
    units = user_id.encode() if user_id.isascii() else code_units(user_id)
    if len(units) > _SHORT:
        state = fnv1a32(units, state)
    else:
        for unit in units:
            state = (state ^ unit) * 0x01000193
    twice = 0x811C9DC5
    for digit in b"%d" % (state & 0xFFFFFFFF):
        twice = (twice ^ digit) * 0x01000193
    return (twice & 0xFFFFFFFF) % 10_000
