import json
from pathlib import Path

from experiments import report

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


def test_the_published_schema_is_the_one_of_the_code() -> None:
    """Write it anew with ``python -m tests.test_docs_schema``."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == report.json_schema()


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(report.json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
