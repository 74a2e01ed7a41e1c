"""The one error of the SDK's pure core: a document that cannot be used."""

from __future__ import annotations

__all__ = ["DocumentError"]


class DocumentError(ValueError):
    """A document field that cannot be used: where it is, what it holds, and what would be right."""

    def __init__(self, path: str, value: object, remedy: str) -> None:
        super().__init__(path, value, remedy)
        self.path = path
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.value!r}: {self.remedy}"
