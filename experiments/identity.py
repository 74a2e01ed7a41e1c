"""Who is the same person: links between ids, in the order of receipt.

The first link of an id stays, and a link that would lead an id back to itself is none. So every id has one last id, a
link that comes again changes nothing, and neither does one that was refused before.
"""

from collections.abc import Hashable, Iterable, Iterator, MutableMapping
from typing import TypeVar

import numpy as np
import pyarrow as pa

_K = TypeVar("_K", bound=Hashable)


def accept(links: Iterable[tuple[_K, _K]], known: MutableMapping[_K, _K]) -> Iterator[tuple[_K, _K]]:
    """Yield (other id, last id) for each of the links (other id, user) that holds, adding it to those ``known``."""
    for other, user in links:
        last = last_of(user, known)
        if other not in known and last != other:
            known[other] = last
            yield other, last


def last_of(who: _K, known: MutableMapping[_K, _K]) -> _K:
    """Return the last id of the chain that starts at ``who``; the chain is shortened on the way."""
    path = []
    last = who
    while last in known:
        path.append(last)
        last = known[last]
    for passed in path:
        known[passed] = last
    return last


def rivals(links: pa.Table) -> int:
    """Count the links (other_id, user_id), in the order of receipt, whose two ids belong to different people."""
    if not len(links):
        return 0
    person = dict(zip(*last_ids(links).to_pydict().values(), strict=True))
    pairs = zip(*links.select(["other_id", "user_id"]).to_pydict().values(), strict=True)
    return sum(person.get(other, other) != person.get(user, user) for other, user in pairs)


def last_ids(links: pa.Table) -> pa.Table:
    """Return ``other_id`` and ``person``, its last id, of links (other_id, user_id) in the order of receipt."""
    both = pa.chunked_array([*links["other_id"].chunks, *links["user_id"].chunks], pa.string())
    coded = both.combine_chunks().dictionary_encode()
    other, user = np.split(coded.indices.to_numpy(), 2)
    linked, first = np.unique(other, return_index=True)
    last = np.arange(len(coded.dictionary))
    last[linked] = user[first]
    # Twice as far at each step.
    for _ in range(len(last).bit_length()):
        last = last[last]
    if np.isin(last, linked).any():  # a ring, which only the links one by one tell where to open
        known: dict[int, int] = {}
        for _ in accept(zip(other.tolist(), user.tolist(), strict=True), known):
            pass
        linked = np.fromiter(known, np.int64, len(known))
        last[linked] = [last_of(one, known) for one in linked.tolist()]
    return pa.table({"other_id": coded.dictionary.take(linked), "person": coded.dictionary.take(last[linked])})
