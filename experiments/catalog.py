"""The documents in force, compiled once for each change: what assignment and ingest look things up in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import msgspec
from sqlalchemy.orm import Session

from experiments import growthbook, registry
from experiments.documents import Experiment, Kind
from experiments.sdk.assignment import Evaluator


@dataclass(frozen=True)
class Catalog:
    """All experiments with their compiled form, as of one ``version`` of the registry."""

    version: int
    experiments: Mapping[str, Experiment]
    evaluator: Evaluator
    snapshot: bytes
    """What SDKs assign by, in JSON."""
    flags: dict[tuple[int, str | None], bytes] = field(default_factory=dict)
    """Answers in JSON, by the identity of the evaluator's assignment and the stratum."""

    @cached_property
    def features(self) -> bytes:
        """The same as the SDKs of GrowthBook read it."""
        return msgspec.json.encode(growthbook.payload(self.evaluator))


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
                    documents = {document.key: document for document in registry.all_of(session, Kind.experiment)}
                    snapshot = registry.snapshot(session)
                    text = msgspec.json.encode(snapshot)
                    catalog = self._catalog = Catalog(version, documents, Evaluator(snapshot), text)
        return catalog
