"""The documents in force, compiled once for each change: what assignment and ingest look things up in."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from sqlalchemy.orm import Session

from experiments import registry
from experiments.documents import Experiment, Kind
from experiments.sdk.assignment import Evaluator


@dataclass(frozen=True, slots=True)
class Catalog:
    """All experiments with their compiled form, as of one ``version`` of the registry."""

    version: int
    experiments: Mapping[str, Experiment]
    evaluator: Evaluator


class CatalogCache:
    """Keeps the newest catalog; asking costs one small query while nothing changed."""

    def __init__(self) -> None:
        self._catalog: Catalog | None = None
        self._lock = Lock()

    def current(self, session: Session) -> Catalog:
        """Return the catalog of the registry's newest version."""
        version = registry.version(session)
        catalog = self._catalog
        if catalog is None or catalog.version != version:
            with self._lock:
                catalog = self._catalog
                if catalog is None or catalog.version != version:
                    documents = {document.key: document for document in registry.all_of(session, Kind.experiment)}
                    evaluator = Evaluator(registry.snapshot(session))
                    catalog = self._catalog = Catalog(version, documents, evaluator)
        return catalog
