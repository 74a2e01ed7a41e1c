"""Files of studies and lists that nobody asks for any more: scores, models, and lists of users."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.documents import Kind
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import Revision, SavedList, SavedStudy
from experiments.uplift import lists, studies
from experiments.uplift.studies import StudyStatus

# Of each experiment so many studies and lists keep their files, however old.
NEWEST: Final = 3
AGE: Final = timedelta(days=14)


def tidy(store: Store, *, now: datetime) -> list[Path]:
    """Delete files that are neither new nor used, and return them; what is on record of their work stays.

    Kept are those of the last two weeks, of the newest three studies and lists of each experiment that are done, and
    all that a revision of a policy names. Files of which nothing is on record are not ours to judge.

    Args:
        store: the store.
        now: the present.
    """
    with store.read() as session:
        named = _named(session)
        kept_lists, old_lists = _sorted(session.scalars(select(SavedList)), named, now)
        named |= {row.study for row in kept_lists}
        _, old_studies = _sorted(session.scalars(select(SavedStudy)), named, now)
    gone = []
    for folder, old in _folders(store.settings, old_studies, old_lists):
        for file in sorted(folder.glob("*")):
            if file.stem in old:
                file.unlink(missing_ok=True)
                gone.append(file)
    return gone


def _folders(settings: Settings, old_studies: set[str], old_lists: set[str]) -> Iterator[tuple[Path, set[str]]]:
    yield studies.scores_path(settings, "any").parent, old_studies
    yield lists.users_path(settings, "any").parent, old_lists


def _named(session: Session) -> set[str]:
    """The studies and lists that some revision of a policy names: it may be rolled back to."""
    found: set[str | None] = set()
    for body in session.scalars(select(Revision.body).where(Revision.kind == Kind.policy)):
        policy: dict[str, Any] = msgspec.json.decode(body)
        source, promise = policy.get("source") or {}, policy.get("promise") or {}
        found |= {source.get("report"), source.get("list_id"), promise.get("report")}
    return {name for name in found if name is not None}


def _sorted(rows: Iterable[Any], named: set[str], now: datetime) -> tuple[list[Any], set[str]]:
    """The rows whose files are kept, and the ids of the others."""
    done: defaultdict[str, int] = defaultdict(int)
    kept, old = [], set()
    for row in sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True):
        done[row.experiment] += row.status == StudyStatus.done
        newest = row.status == StudyStatus.done and done[row.experiment] <= NEWEST
        if newest or row.id in named or now - row.beat_at < AGE:
            kept.append(row)
        else:
            old.add(row.id)
    return kept, old
