"""What experiments and policies share: variants with tactics and costs, metrics in use, what a change is worth."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from experiments.fields import Document, FlagValue, Key, Name, Payload, Role, Share

_DAYS = {"day": 1.0, "week": 7.0, "month": 365.25 / 12, "quarter": 365.25 / 4}


class Frequency(Document):
    """How often a user is touched: ``touches`` times per ``per``, through ``channel``."""

    touches: int = Field(ge=0, le=1000)
    per: Literal["day", "week", "month", "quarter"]
    channel: str | None = None


class Tactic(Document):
    """What a variant does to a user. ``extra`` goes to the app unread."""

    copy_: str | None = Field(default=None, alias="copy")
    offer: Payload | None = None
    frequency: Frequency | None = None
    extra: Payload | None = None


class Costs(Document):
    """Unit costs of a variant in the store's currency; ``per_user`` is paid once for every user in it."""

    per_user: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)


class Variant(Document):
    """One arm of an experiment.

    In a factorial design ``factors`` names the level of each factor, such as {"copy": "urgent", "offer": "coupon"}.
    ``value`` is what apps get that read the experiment as a feature flag; without it they get the tactic, or where no
    variant has one, the variant's key.
    """

    key: Key
    name: Name | None = None
    tactic: Tactic | None = None
    value: FlagValue | None = None
    costs: Costs = Costs()
    factors: dict[Key, Name] = Field(default_factory=dict)

    def dose(self) -> float | None:
        """Touches a week, where the tactic sets a frequency."""
        frequency = self.tactic.frequency if self.tactic else None
        return None if frequency is None else frequency.touches * 7 / _DAYS[frequency.per]


class MetricUse(Document):
    """A metric in an experiment; ``role`` and ``margin`` override the metric's own."""

    key: Key
    role: Role | None = None
    margin: Annotated[float, Field(gt=0)] | None = None


class Value(Document):
    """What a change is worth: the effect on ``metric`` times ``margin``, less the costs, times ``monthly_users``."""

    metric: Key
    margin: Share = 1.0
    monthly_users: int = Field(ge=1)
