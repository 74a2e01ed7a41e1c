"""The command ``upturn policy``: the life of policies, by the functions of the API."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands import stores

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from experiments.policy import Policy


@click.group()
def policy() -> None:
    """Policies: what was decided, served with a share held back as a yardstick."""


@policy.command("list")
@stores.format_option
def show_all(form: str) -> None:
    """All policies: what each serves, to whom, and what is held back."""
    from experiments import registry, terminal
    from experiments.documents import Kind

    now = stores.now()
    with stores.opened() as store, store.read() as session:
        rows = [_line(session, each, now) for each in registry.all_of(session, Kind.policy)]
    columns = ("key", "status", "revision", "rules", "otherwise", "holdback", "promised", "realised", "refresh")
    terminal.show(columns, rows, form)


def _line(session: "Session", found: "Policy", now: datetime) -> dict[str, Any]:
    from experiments import promises, registry, reports
    from experiments.documents import Kind

    saved = reports.latest(session, found.key, Kind.policy)
    realised = None
    if saved is not None:
        reported: Policy = registry.get(session, Kind.policy, found.key, saved.report.revision)
        realised = promises.realised(reported, saved.report, saved.id, "")
    due = None if found.source is None else found.source.refresh_by
    return {
        "key": found.key,
        "status": found.status,
        "revision": found.revision,
        "rules": len(found.rules),
        "otherwise": found.otherwise,
        "holdback": f"{found.holdback.share:.2%}",
        "promised": "" if found.promise is None or found.promise.relative is None else _effect(found.promise.relative),
        "realised": "" if realised is None else f"{realised.delivery} {_effect(realised.realised)}".strip(),
        "refresh": "" if due is None else f"{'due since' if due < now else 'by'} {due.date()}",
    }


def _effect(found: Any) -> str:
    return "" if found is None else f"{found.estimate:+.1%} [{found.lower:+.1%}, {found.upper:+.1%}]"


@policy.command("show")
@click.argument("key")
@stores.format_option
def show_one(key: str, form: str) -> None:
    """One policy: its rules in order, and who is held back."""
    import json

    from experiments import registry, terminal
    from experiments.documents import Kind

    with stores.opened() as store, store.read() as session:
        found: Policy = registry.get(session, Kind.policy, key)
        line = _line(session, found, stores.now())
    if form == "json":
        click.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
        return
    click.echo(f"{found.key}: {found.name} ({found.status}, revision {found.revision}, phase {found.phase})")
    rules = [
        {
            "rule": rule.name,
            "who": f"segment {rule.segment}" if rule.segment else json.dumps(rule.condition, ensure_ascii=False),
            "gets": rule.variant,
        }
        for rule in found.rules
    ]
    terminal.show(
        ("rule", "who", "gets"), [*rules, {"rule": "", "who": "all others", "gets": found.otherwise}], "table"
    )
    click.echo(f"held back: {line['holdback']}")
    for name in ("promised", "realised", "refresh"):
        if line[name]:
            click.echo(f"{name}: {line[name]}")


@policy.command("create")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def create(file: Path) -> None:
    """Create the draft of a policy from a document (JSON)."""
    from experiments import registry
    from experiments.documents import Kind

    with stores.opened() as store, store.write() as session:
        made = registry.create(session, Kind.policy, file.read_bytes(), actor=stores.ACTOR, now=stores.now())
    click.echo(f"{made.key}: draft, revision {made.revision}")


@policy.command("start")
@click.argument("key")
def start(key: str) -> None:
    """Start a policy, or go on with one that was paused: from then on it has the flag."""
    _move(key, "running")


@policy.command("pause")
@click.argument("key")
def pause(key: str) -> None:
    """Serve nobody for a while: the app's own default holds."""
    _move(key, "paused")


@policy.command("stop")
@click.argument("key")
def stop(key: str) -> None:
    """Stop a policy for good: the app's own default holds."""
    _move(key, "stopped")


def _move(key: str, status: str) -> None:
    from experiments import registry
    from experiments.policy import PolicyStatus

    with stores.opened() as store, store.write() as session:
        made = registry.move_policy(session, key, PolicyStatus(status), actor=stores.ACTOR, now=stores.now())
    click.echo(f"{made.key}: {made.status}, revision {made.revision}")


@policy.command("widen")
@click.argument("key")
@click.option("--holdback", type=click.FloatRange(0, 1), required=True, help="The share held back from now on.")
def widen(key: str, holdback: float) -> None:
    """Reach more users: hold back a smaller share."""
    from experiments import registry
    from experiments.documents import Kind
    from experiments.errors import FieldProblem, InvalidDocument

    with stores.opened() as store, store.write() as session:
        found: Policy = registry.get(session, Kind.policy, key)
        before = found.holdback.share
        if holdback >= before:
            remedy = f"give less than the {before:g} held back now; to take the tactic from users, roll back"
            raise InvalidDocument([FieldProblem("holdback", holdback, "out_of_range", remedy)], "command")
        body = found.to_json()
        body["holdback"]["share"] = holdback
        made = registry.revise(session, Kind.policy, key, body, actor=stores.ACTOR, now=stores.now())
    click.echo(f"{made.key}: {before:.2%} → {holdback:.2%} held back, revision {made.revision}")


@policy.command("rollback")
@click.argument("key")
@click.option("--to", type=click.Choice(["previous", "control"]), default="previous", show_default=True)
def roll_back(key: str, to: str) -> None:
    """Serve again what was served before, or the control to all."""
    from experiments import registry

    with stores.opened() as store, store.write() as session:
        made = registry.roll_back(session, key, to_control=to == "control", actor=stores.ACTOR, now=stores.now())
    click.echo(f"{made.key}: rolled back, revision {made.revision}, phase {made.phase}")
