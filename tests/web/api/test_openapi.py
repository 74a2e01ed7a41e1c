"""The OpenAPI document is valid and complete, and the server keeps to it."""

from contextlib import suppress
from typing import Any, get_args

import jsonschema
import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from experiments import documents, segment
from experiments.access import Scope
from experiments.documents import Kind
from experiments.store import Store
from tests.web import made
from web import create_app
from web.thin import Thin

# Segment's contract, described by Segment; and a stream, which no generated test can read to its end.
NOT_OURS = {"/v1/stream", *(f"/v1/{name}" for kind in get_args(segment.Kind) for name in (kind, kind[0]))}


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.mimetype == "application/json"
    assert isinstance(answer.json, dict)
    return answer.json


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")


def test_every_route_of_the_api_is_described(app: Flask, document: dict[str, Any]) -> None:
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/v1") or rule.rule == "/healthz"
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    assert isinstance(app.wsgi_app, Thin)
    thin = {(path, method.lower()) for path, methods in app.wsgi_app.routes.exact.items() for method in methods}
    routes |= {(path, method) for path, method in thin if path.startswith("/v1/") and path not in NOT_OURS}
    assert routes == {(path, method) for path, item in document["paths"].items() for method in item}


def test_every_operation_names_its_scope_its_problems_and_its_schemas(document: dict[str, Any]) -> None:
    names = set()
    for path, item in document["paths"].items():
        for operation in item.values():
            names.add(operation["operationId"])
            if path == "/healthz":
                continue
            assert any(f"`{scope}`" in operation["description"] for scope in Scope)
            assert {"401", "403", "500"} <= operation["responses"].keys()
            for status, answer in operation["responses"].items():
                assert status == "304" or answer["content"]
    assert len(names) == sum(map(len, document["paths"].values()))


def test_the_schemas_of_documents_are_those_that_check_them(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for kind in Kind:
        name = kind.value.capitalize()
        own = documents.json_schema(kind)
        assert schemas[name].get("required") == own.get("required")
        resolver = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        good = {Kind.experiment: made.EXPERIMENT, Kind.metric: made.METRIC, Kind.segment: made.SEGMENTS[0]}.get(kind)
        if good is not None:
            jsonschema.validate(good, resolver)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({"key": "!"}, resolver)


# A schema cannot say all that a document needs (weights name the variants, references exist), so bodies that fit the
# schema may be refused with 422. Whether an id can still be used after a deletion does not arise: nothing is deleted.
_LEFT_OUT = {"positive_data_acceptance", "use_after_free", "ensure_resource_availability"}
_CASES = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_the_server_keeps_to_its_document(store: Store, keys: dict[Scope, str]) -> None:
    made.documents(store)
    app = create_app(store=store, clock=lambda: made.NOW)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    load_all_checks()
    left_out = [check for check in CHECKS.get_all() if check.__name__ in _LEFT_OUT]
    assert len(left_out) == len(_LEFT_OUT)
    headers = {"Authorization": f"Bearer {keys[Scope.admin]}"}
    statuses = set()
    for found in schema.get_all_operations():
        for mode in GenerationMode:

            @_CASES
            @given(found.ok().as_strategy(generation_mode=mode))
            def run(case: Any) -> None:
                answer = case.call(headers=headers)
                case.validate_response(answer, excluded_checks=left_out, headers=headers)
                statuses.add(answer.status_code)

            with suppress(Unsatisfiable):  # an operation that takes nothing cannot be given anything wrong
                run()
    assert {200, 201, 202, 400, 404, 422} <= statuses
