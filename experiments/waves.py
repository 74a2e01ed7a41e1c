"""Adaptive shares: what a document says of them, and the waves of users that they are given to.

Users come in waves: slices of the experiment's buckets, one behind the other. A wave's shares are set when it opens and
never change, so nobody ever moves, and chances are known for each wave. Who belongs to a later wave is not in the
experiment before it opens.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field

from experiments.fields import BUCKETS, Document, Instant, Key, Share

# What the audit trail calls it: a wave opened; it was due, and was not opened.
OPENED: Final = "open_wave"
REFUSED: Final = "refuse_wave"


class Adaptive(Document):
    """Shares that follow the evidence (Thompson sampling), wave by wave.

    Every ``every_hours`` at the earliest a ``wave`` opens, a share of all users. Its shares are the chances of each
    variant to be the best by ``metric`` (the primary one where it is left out), none below ``floor``; until
    ``burn_in_users`` have matured they are equal.
    """

    floor: float = Field(default=0.1, ge=0.01, le=0.5)
    wave: Share = Field(default=0.1, gt=0)
    every_hours: int = Field(default=24, ge=1, le=8_760)
    metric: Key | None = None
    burn_in_users: int = Field(default=500, ge=4)

    @property
    def buckets(self) -> int:
        """How many buckets a wave has."""
        return round(self.wave * BUCKETS)

    def fits(self, arms: int, buckets: int) -> bool:
        """Whether a wave of so many buckets gives each arm its floor."""
        return arms * _least(self.floor, buckets) <= buckets


class Wave(Document):
    """One slice of the buckets: when it opened, and each variant's width, as a share of all users."""

    opened_at: Instant
    widths: dict[Key, Share]

    @property
    def size(self) -> float:
        """The share of all users in this wave."""
        return self.buckets / BUCKETS

    @property
    def buckets(self) -> int:
        """How many buckets it has."""
        return sum(round(width * BUCKETS) for width in self.widths.values())

    def shares(self) -> dict[str, float]:
        """Return each variant's share of the wave's users."""
        return {variant: round(width * BUCKETS) / self.buckets for variant, width in self.widths.items()}


def label(experiment: str, number: int) -> str:
    """Return what the stratum of a wave is called, which no segment can be; the first has the number 1."""
    return f"{experiment}:{number}"


def next_size(adaptive: Adaptive, waves: Sequence[Wave], arms: int) -> int:
    """Return the number of buckets of the next wave, 0 when all users are in one."""
    buckets = min(adaptive.buckets, BUCKETS - sum(wave.buckets for wave in waves))
    return buckets if buckets > 0 and adaptive.fits(arms, buckets) else 0


def widths(shares: Mapping[str, float], floor: float, buckets: int) -> dict[str, float]:
    """Cut a wave of ``buckets`` into whole ones by these shares, none below the floor; widths are shares of all users.

    What is left by rounding down goes to the largest remainders; what a floor takes, the widest arms give.
    """
    least = _least(floor, buckets)
    ideal = {variant: share * buckets for variant, share in shares.items()}
    whole = {variant: max(least, math.floor(value)) for variant, value in ideal.items()}
    while (spare := buckets - sum(whole.values())) != 0:
        if spare > 0:
            whole[max(whole, key=lambda variant: ideal[variant] - whole[variant])] += 1
        else:
            whole[max(whole, key=lambda variant: whole[variant] - least)] -= 1
    return {variant: width / BUCKETS for variant, width in whole.items()}


def _least(floor: float, buckets: int) -> int:
    # A floor such as 0.07 of 100 is 7.000000000000001 in binary.
    return math.ceil(floor * buckets - 1e-9)
