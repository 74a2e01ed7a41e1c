"""The documents in force, compiled once for each change: what assignment and ingest look things up in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import msgspec
from sqlalchemy.orm import Session

from experiments import growthbook, registry
from experiments.documents import Experiment
from experiments.sdk.assignment import Evaluator
from experiments.sdk.experiment import CompiledExperiment


@dataclass(frozen=True)
class Catalog:
    """All flags with their compiled form, as of one ``version`` of the registry.

    A flag is an experiment, or the policy that took its place, as the experiment that serves it. ``replaced``: the
    experiments whose place a policy took, whose exposures may still come in.
    """

    version: int
    experiments: Mapping[str, Experiment]
    replaced: Mapping[str, Experiment]
    evaluator: Evaluator
    snapshot: bytes
    """What SDKs assign by, in JSON."""
    flags: dict[tuple[int, str | None], bytes] = field(default_factory=dict)
    """Answers in JSON, by the identity of the evaluator's assignment and the stratum."""

    @cached_property
    def features(self) -> bytes:
        """The same as the SDKs of GrowthBook read it."""
        return msgspec.json.encode(growthbook.payload(self.evaluator))

    def of_phase(self, key: str, phase: int | None) -> tuple[Experiment, CompiledExperiment] | None:
        """Return the experiment that had this flag in a phase (None: has it now), and its compiled form."""
        earlier = self.replaced.get(key)
        if earlier is not None and phase is not None and phase <= earlier.phase:
            return earlier, self._replaced.experiments[key]
        document = self.experiments.get(key)
        return None if document is None else (document, self.evaluator.experiments[key])

    @cached_property
    def _replaced(self) -> Evaluator:
        documents = [document.to_json() for document in self.replaced.values()]
        return Evaluator(msgspec.json.decode(self.snapshot) | {"experiments": documents})


class CatalogCache:
    """Keeps the newest catalog; asking costs one small query while nothing changed."""

    def __init__(self) -> None:
        self._catalog: Catalog | None = None
        self._lock = Lock()

    @property
    def newest(self) -> Catalog | None:
        """The catalog made last, which may have been overtaken."""
        return self._catalog

    def current(self, session: Session) -> Catalog:
        """Return the catalog of the registry's newest version."""
        version = registry.version(session)
        catalog = self._catalog
        if catalog is None or catalog.version != version:
            with self._lock:
                catalog = self._catalog
                if catalog is None or catalog.version != version:
                    served, replaced = registry.flags(session)
                    snapshot = registry.snapshot(session)
                    text = msgspec.json.encode(snapshot)
                    catalog = self._catalog = Catalog(version, served, replaced, Evaluator(snapshot), text)
        return catalog
