"""Upturn as a provider of OpenFeature (`pip install openfeature-sdk`): experiments are read as flags.

api.set_provider(UpturnProvider(Client(url, key)))
api.get_client().get_string_value("spring-coupon", "none", EvaluationContext("user-1", {"city": "上海"}))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, TypeVar, cast
from weakref import WeakMethod

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
from openfeature.flag_evaluation import Reason as FlagReason
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from .client import Client, Details
from .experiment import Reason
from .snapshots import Source

__all__ = ["UpturnProvider"]

_T = TypeVar("_T")

_REASONS: Final = {
    Reason.assigned: FlagReason.SPLIT,
    Reason.forced: FlagReason.TARGETING_MATCH,
    Reason.sticky: FlagReason.CACHED,
    Reason.not_running: FlagReason.DISABLED,
}


class UpturnProvider(AbstractProvider):
    """Resolves flags by a client: each resolution with a variant is an exposure, and `track` records an event.

    Args:
        client: is closed with the provider.
        ready_seconds: the longest that the start waits for the first snapshot.
    """

    def __init__(self, client: Client, *, ready_seconds: float = 5.0) -> None:
        super().__init__()
        self._client = client
        self._ready_seconds = ready_seconds
        self._source: Source = "none"
        self._started = False
        # The client's threads must not keep the provider, and with it the client.
        heard = WeakMethod(self._heard)
        client.subscribe(lambda source: (listener := heard()) and listener(source))

    def get_metadata(self) -> Metadata:
        return Metadata(name="Upturn")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        ready = self._client.wait_until_ready(self._ready_seconds)
        self._source, self._started = self._client.source, True
        if not ready:
            raise ProviderNotReadyError("there is no snapshot yet; defaults are given until there is")

    def shutdown(self) -> None:
        self._client.close()

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        details = tracking_event_details or TrackingEventDetails()
        user = evaluation_context.targeting_key if evaluation_context else None
        self._client.track(user or "", tracking_event_name, details.value, details.attributes or None)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, default_value, evaluation_context, lambda value: isinstance(value, bool))

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, default_value, evaluation_context, lambda value: isinstance(value, str))

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, default_value, evaluation_context, lambda value: type(value) is int)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        found = self._resolve(flag_key, default_value, evaluation_context, lambda value: type(value) in (int, float))
        if found.error_code is None and found.variant is not None:
            found.value = float(found.value)
        return found

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        return self._resolve(flag_key, default_value, evaluation_context, lambda value: isinstance(value, dict | list))

    def _resolve(
        self, flag: str, default: _T, context: EvaluationContext | None, fits: Callable[[object], bool]
    ) -> FlagResolutionDetails[_T]:
        user = (context.targeting_key if context else None) or ""
        found = self._client.details(flag, user, cast("Mapping[str, object]", context.attributes) if context else None)
        if problem := _problem(found):
            code, message = problem
            return FlagResolutionDetails(default, code, message, FlagReason.ERROR)
        reason = _REASONS.get(cast(Reason, found.reason), FlagReason.DEFAULT)
        if found.variant is None:
            return FlagResolutionDetails(default, reason=reason, flag_metadata=_metadata(found))
        if not fits(found.value):
            message = f"the variant {found.variant!r} holds another type: {type(found.value).__name__}"
            return FlagResolutionDetails(default, ErrorCode.TYPE_MISMATCH, message, FlagReason.ERROR)
        self._client.expose(found)
        value: Any = deepcopy(found.value) if isinstance(found.value, dict | list) else found.value
        return FlagResolutionDetails(value, reason=reason, variant=found.variant, flag_metadata=_metadata(found))

    def _heard(self, source: Source) -> None:
        if not self._started:
            return  # what `initialize` finds is told by its end
        before, self._source = self._source, source
        if source == "stale":
            self.emit_provider_stale(ProviderEventDetails(message="the server cannot be reached"))
        elif before in ("none", "stale"):
            self.emit_provider_ready(ProviderEventDetails())
        else:
            self.emit_provider_configuration_changed(ProviderEventDetails())


def _problem(found: Details) -> tuple[ErrorCode, str] | None:
    if found.error == "no_snapshot":
        return ErrorCode.PROVIDER_NOT_READY, "there is no snapshot yet"
    if found.error is not None:
        return ErrorCode.GENERAL, "the flag could not be evaluated"
    if found.reason is Reason.unknown_experiment:
        return ErrorCode.FLAG_NOT_FOUND, "there is no such experiment"
    if found.reason is Reason.no_user_id:
        return ErrorCode.TARGETING_KEY_MISSING, "give the user's id as the targeting key"
    return None


def _metadata(found: Details) -> dict[str, bool | int | float | str]:
    metadata: dict[str, bool | int | float | str] = {
        "experiment": found.experiment,
        "revision": found.revision,
        "phase": found.phase,
        "reason": str(found.reason),
        "source": found.source,
    }
    return metadata if found.stratum is None else metadata | {"stratum": found.stratum}
