"""What a call is told of the record: the key, the registry's version and the user in one answer."""

from datetime import datetime

from experiments import access
from experiments.lookup import NOBODY
from experiments.store import Store
from experiments.tables import StoredAssignment, UserAttributes


def test_one_answer_tells_the_key_and_what_is_known_of_the_user(any_store: Store, now: datetime) -> None:
    with any_store.write() as session:
        digest = access.digest(access.create_key(session, "app", ["assign"], now=now))
        session.add(UserAttributes(user_id="小明", attributes='{"city":"上海"}'))
        for experiment, stratum in (("copy", "vip"), ("offer", None)):
            values = {"user_id": "小明", "experiment": experiment, "phase": 2, "variant": "b", "stratum": stratum}
            session.add(StoredAssignment(**values))
    lookup = any_store.lookup
    admission = lookup.admit(digest, "小明")
    assert admission is not None
    assert admission.key.name == "app"
    assert admission.user.attributes == {"city": "上海"}
    assert admission.user.stored == {("copy", 2): ("b", "vip"), ("offer", 2): ("b", None)}
    assert lookup.users(["小明"]) == {"小明": admission.user}
    for other in ("", "nobody", "\0"):
        found = lookup.admit(digest, other)
        assert found is not None
        assert found.user is NOBODY
    assert lookup.admit("another", "小明") is None
