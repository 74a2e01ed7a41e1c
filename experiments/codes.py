"""The closed sets of codes in a report; the sentences for them live in the translations."""

from enum import StrEnum


class Verdict(StrEnum):
    """What the report advises."""

    ship = "ship"
    stop = "stop"
    keep_running = "keep_running"
    inconclusive = "inconclusive"
    invalid = "invalid"


class ReasonCode(StrEnum):
    """Why the report advises it."""

    primary_better = "primary_better"
    primary_worse = "primary_worse"
    primary_not_significant = "primary_not_significant"
    planned_size_not_reached = "planned_size_not_reached"
    no_matured_users = "no_matured_users"
    sample_ratio_mismatch = "sample_ratio_mismatch"
    too_many_crossovers = "too_many_crossovers"
    guardrail_harmed = "guardrail_harmed"
    guardrail_not_proven = "guardrail_not_proven"
    segment_harmed = "segment_harmed"
    value_uncertain = "value_uncertain"
    value_negative = "value_negative"
    before_first_look = "before_first_look"
    futile = "futile"


class HealthCode(StrEnum):
    """What a reader should know about the data before he trusts the effects."""

    sample_ratio_mismatch = "sample_ratio_mismatch"
    segment_sample_ratio_mismatch = "segment_sample_ratio_mismatch"
    crossovers = "crossovers"
    identity_crossovers = "identity_crossovers"
    immature_users = "immature_users"
    forced_users = "forced_users"
    thin_segment = "thin_segment"
    daily_sample_ratio_mismatch = "daily_sample_ratio_mismatch"
    different_before = "different_before"
    novelty = "novelty"
    outlier_influence = "outlier_influence"
    trigger_depends_on_variant = "trigger_depends_on_variant"
    openers_only = "openers_only"
    effect_drifted = "effect_drifted"
