"""The OpenAPI 3.1 document, made from the declared operations and the schemas of documents and reports."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from experiments import conflicts, documents, ingest, planner, promises, report, reports
from experiments.documents import Kind
from experiments.programme import totals as programme
from experiments.uplift import lists, studies
from experiments.uplift import report as uplift_report
from web import problems
from web.api import assignments
from web.api.adaptive import Adaptation
from web.api.documents import StatusChange
from web.api.operations import Operation
from web.api.policies import PolicyStatusChange, RollBack
from web.api.programme import TacticList
from web.api.reports import LearntPrior, ReportList
from web.api.uplift import StudyList, UserLists

_REF = "#/components/schemas/"
_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "key": {"description": "Key of the document", "schema": {"type": "string"}},
    "report": {"description": "Id of the report", "schema": {"type": "string"}},
    "study": {"description": "Id of the study", "schema": {"type": "string"}},
    "list_id": {"description": "Id of the list", "schema": {"type": "string"}},
    "revision": {"description": "Number of the revision", "schema": {"type": "integer", "minimum": 1}},
}
_HEADERS = {
    "ETag": "Name of this state of the resource",
    "Location": "Where it can be read",
    "If-Match": "Refuse with 412 unless this is the newest revision's ETag",
    "If-None-Match": "Answer 304 if this is the ETag still",
}
_OBJECT = {"type": "object"}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of the API."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(f"/v1{operation.path}", {})[operation.method.lower()] = _operation(operation)
    paths["/healthz"] = {"get": _health()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Upturn",
            "version": reports.program_version(),
            "description": "Assignment, events, experiments and reports. Every error is a problem (RFC 9457).",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    in_path = [part[1:-1].partition("}")[0] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, **_PARAMETERS[name]} for name in in_path]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    parameters += [
        {"name": name, "in": "header", "description": _HEADERS[name], "schema": {"type": "string"}}
        for name in operation.headers
    ]
    failing = {401, 403, 500, *operation.problems}
    failing |= {404} if in_path else set()
    failing |= {400, 413, 415} if operation.body is not None else set()
    result: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": f"Needs a key with the scope `{operation.scope}`.",
        "security": [{"bearer": []}, {"header": []}],
        "parameters": parameters,
        "responses": {
            **{str(status): _answer(answer) for status, answer in operation.answers.items()},
            **{str(status): _problem(status) for status in sorted(failing)},
        },
    }
    if operation.body is not None:
        content = {"application/json": {"schema": operation.body}}
        result["requestBody"] = {"required": operation.body_required, "content": content}
    return result


def _answer(answer: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"description": answer.description}
    if answer.content:
        result["content"] = {media: {"schema": schema} for media, schema in answer.content.items()}
    if answer.headers:
        result["headers"] = {
            name: {"description": _HEADERS[name], "required": True, "schema": {"type": "string"}}
            for name in answer.headers
        }
    return result


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": f"{_REF}ProblemDetails"}
    return {"description": HTTPStatus(status).phrase, "content": {problems.MEDIA_TYPE: {"schema": schema}}}


def _health() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    return {
        "operationId": "health",
        "tags": ["service"],
        "summary": "Whether the server can read its store.",
        "security": [],
        "responses": {
            "200": {"description": "It can", "content": {"application/json": {"schema": schema}}},
            "503": _problem(503),
        },
    }


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {
        "ProblemDetails": _PROBLEM,
        "History": _HISTORY,
        "Snapshot": _SNAPSHOT,
        "Batch": _batch(),
    }
    sources = {kind.value.capitalize(): documents.json_schema(kind) for kind in Kind}
    for change in (StatusChange, PolicyStatusChange, RollBack):
        sources[change.__name__] = change.model_json_schema()
    sources["PlanRequest"] = planner.PlanRequest.model_json_schema()
    sources["ExperimentPlanRequest"] = planner.ExperimentPlanRequest.model_json_schema()
    sources["StudyRequest"] = studies.StudyRequest.model_json_schema()
    sources["ListRequest"] = lists.ListRequest.model_json_schema()
    sources["Report"] = report.json_schema()
    for name, source in sources.items():
        body = {key: value for key, value in source.items() if key not in ("$defs", "$schema")}
        parts = dict(source.get("$defs", {}))
        if body.get("$ref") != f"#/$defs/{name}":
            parts[name] = body
        for part, schema in parts.items():
            schema = _moved(schema)
            if schemas.setdefault(part, schema) != schema:
                raise ValueError(f"two schemas are named {part}")
    types = [
        Adaptation,
        conflicts.Findings,
        assignments.OneUser,
        assignments.ManyUsers,
        assignments.UserAssignments,
        assignments.ManyAssignments,
        ingest.Receipt,
        LearntPrior,
        planner.PlanAnswer,
        programme.Programme,
        promises.Realised,
        TacticList,
        ReportList,
        studies.Study,
        StudyList,
        lists.ListEntry,
        UserLists,
    ]
    schemas |= msgspec.json.schema_components(types, ref_template=f"{_REF}{{name}}")[1]
    schemas |= _uplift()
    schemas["Study"]["properties"]["report"] = {"anyOf": [{"type": "null"}, {"$ref": f"{_REF}Uplift"}]}
    return schemas


def _uplift() -> dict[str, Any]:
    """The report about uplift. Its parts have names of their own: some are called as parts of the other report."""
    found = uplift_report.json_schema()
    own = msgspec.json.decode(msgspec.json.encode(found["$defs"]).replace(b"#/$defs/", f"{_REF}Uplift.".encode()))
    return {"Uplift" if name == "Uplift" else f"Uplift.{name}": schema for name, schema in own.items()}


def _moved(schema: Any) -> Any:
    """Return a schema whose references to its own definitions point to the components."""
    return msgspec.json.decode(msgspec.json.encode(schema).replace(b"#/$defs/", _REF.encode()))


def _batch() -> dict[str, Any]:
    common = {
        "messageId": {"type": "string", "minLength": 1, "maxLength": 300},
        "userId": {"type": "string", "minLength": 1, "maxLength": 300},
        "timestamp": {"type": ["string", "null"], "format": "date-time"},
    }
    text = {"type": "string", "minLength": 1, "maxLength": 300}

    def item(name: str, required: list[str], **own: object) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"type": {"const": name}, **common, **own},
            "required": ["type", "messageId", "userId", *required],
            "additionalProperties": False,
        }

    return {
        "type": "object",
        "properties": {
            "batch": {
                "type": "array",
                "maxItems": ingest.MAX_ITEMS,
                "items": {
                    "oneOf": [
                        item("event", ["event"], event=text, value={"type": ["number", "null"]}, properties=_OBJECT),
                        item(
                            "exposure",
                            ["experiment", "variant"],
                            experiment=text,
                            variant=text,
                            phase={"type": ["integer", "null"]},
                            stratum={"type": ["string", "null"]},
                            attributes=_OBJECT,
                        ),
                        item("identify", ["traits"], traits=_OBJECT),
                        item("alias", ["previousId"], previousId=text),
                    ]
                },
            },
            "sentAt": {"type": ["string", "null"], "format": "date-time"},
        },
        "required": ["batch"],
    }


_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "value": {},
                    "problem": {"type": "string"},
                    "remedy": {"type": "string"},
                },
                "required": ["field", "value", "problem", "remedy"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code", "errors"],
}
_HISTORY = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "at": {"type": "string", "format": "date-time"},
                    "actor": {"type": "string"},
                    "action": {"type": "string"},
                    "revision": {"type": "integer"},
                    "diff": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"path": {"type": "string"}, "before": {}, "after": {}},
                            "required": ["path", "before", "after"],
                        },
                    },
                },
                "required": ["at", "actor", "action", "revision", "diff"],
            },
        }
    },
    "required": ["items"],
}
_SNAPSHOT = {
    "type": "object",
    "properties": {
        "version": {"type": "integer"},
        "experiments": {
            "type": "array",
            "description": "Experiments, and policies as the experiments that serve them",
            "items": {"type": "object", "required": ["key", "variants", "control", "status", "phase", "revision"]},
        },
        "segments": {"type": "array", "items": {"type": "object", "required": ["key", "condition"]}},
        "layers": {"type": "array", "items": {"$ref": f"{_REF}Layer"}},
        "holdouts": {"type": "array", "items": {"$ref": f"{_REF}Holdout"}},
        "saved_groups": _OBJECT,
    },
    "required": ["version", "experiments", "segments", "layers", "holdouts", "saved_groups"],
}
