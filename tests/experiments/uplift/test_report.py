import json
from pathlib import Path
from typing import Any

import jsonschema

from experiments.uplift import report
from tests.experiments.uplift import made

SCHEMA = Path(__file__).parents[3] / "docs" / "uplift.schema.json"


def test_the_published_schema_is_the_one_of_the_code() -> None:
    """Write it anew with ``python -m tests.experiments.uplift.test_report``."""
    assert plain(json.loads(SCHEMA.read_text(encoding="utf-8"))) == plain(report.json_schema())


def plain(part: Any) -> Any:
    """A schema with its alternatives in one order: msgspec's versions differ in that."""
    if isinstance(part, dict):
        return {key: plain(value) for key, value in part.items()}
    if isinstance(part, list):
        return sorted((plain(value) for value in part), key=lambda value: json.dumps(value, sort_keys=True))
    return part


def test_answers_keep_to_it() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for table in (made.campaign(3000, effect="city", arms=3), made.campaign(2000, effect="none")):
        body = json.loads(report.encode(made.answered(table, costs={"gift": 1.0}, budget=100.0).report))
        jsonschema.validate(body, schema)
        assert body["schema"] == "upturn.uplift/1"


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(report.json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
