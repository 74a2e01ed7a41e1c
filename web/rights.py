"""Codes of people and keys as sentences: roles, scopes, what the audit trail is of, and why something was refused."""

from collections.abc import Mapping

from flask_babel import lazy_gettext as _

from experiments import access
from experiments.errors import InvalidDocument
from web.sentences import known

ACCOUNT_ROLES: Mapping[str, object] = {
    access.Role.viewer: _("Viewer"),
    access.Role.editor: _("Editor"),
    access.Role.approver: _("Approver"),
    access.Role.admin: _("Admin"),
}

DUTIES: Mapping[str, object] = {
    access.Role.viewer: _("Looks at everything but people and keys."),
    access.Role.editor: _("Also writes drafts, checks them, updates the numbers and runs studies."),
    access.Role.approver: _("Also starts, pauses and stops experiments, decides, and rolls out."),
    access.Role.admin: _("Also adds people, gives them roles, and makes keys for programs."),
}

SCOPES: Mapping[str, object] = {
    access.Scope.assign: _("Ask which variant a user gets"),
    access.Scope.ingest: _("Send events and exposures"),
    access.Scope.read: _("Read experiments and reports"),
    access.Scope.admin: _("Everything, also change and start experiments"),
}

AUDIT_KINDS: Mapping[str, object] = {
    "experiment": _("Experiment"),
    "policy": _("Policy"),
    "metric": _("Metric"),
    "segment": _("Segment"),
    "layer": _("Layer"),
    "holdout": _("Holdout"),
    "account": _("Account"),
    "key": _("Key of a program"),
}

_REFUSALS: Mapping[str, object] = {
    "unknown_role": _("Choose one of the roles."),
    "too_short": _("Give a password of at least 10 characters."),
    "unknown_scope": _("Choose at least one thing the key may do."),
    "bad_origin": _("Give web addresses as https://host or https://host:port, or * for any."),
    "too_powerful": _("Everyone can read a key that is in a web page: let it only assign and take events."),
    "bad_name": _("Give a name of 1 to 100 characters, without spaces at its ends."),
}


def refused(error: InvalidDocument) -> dict[str, str]:
    """Return what is wrong with an account or a key, by field."""
    return {problem.field: known(_REFUSALS, problem.problem) for problem in error.problems}
