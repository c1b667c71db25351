"""Rows of benchmark files, field by field; a field of a wrong kind is an error that names the row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from safekey_interp.errors import InputError


class Row:
    """A suite's row, whose fields are asked for by name."""

    def __init__(self, fields: Mapping[str, Any], where: str, title: str, file: str) -> None:
        """Nothing is read yet.

        Args:
            fields: as the file has them.
            where: how messages name the row.
            title: of the suite.
            file: name of the file that it stands in.
        """
        self._fields, self.where, self._title = fields, where, title
        self.file = file
        """Name of the file that it stands in."""

    def get(self, field: str) -> Any:
        """A field's value; None where it is missing, NaN or an empty text."""
        value = self._fields.get(field)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        return None if isinstance(value, str) and not value.strip() else value

    def there(self, field: str) -> Any:
        """A field's value.

        Raises:
            InputError: it is missing or empty.
        """
        value = self.get(field)
        if value is None:
            filled = ", ".join(str(name) for name in self._fields if self.get(name) is not None) or "nothing"
            raise InputError(
                f"{self.where}: {self._title} needs the field {field!r}, which is missing or empty; the row has "
                f"{filled}"
            )
        return value

    def text(self, field: str) -> str:
        """A field that has to hold a text."""
        value = self.there(field)
        if not isinstance(value, str):
            raise InputError(f"{self.where}: {field}: got {type(value).__name__}, expected a text")
        return value

    def listed(self, field: str) -> list[Any]:
        """A field that has to hold a list, be it as JSON text (in CSV)."""
        value = self.there(field)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, list | tuple):
            raise InputError(f"{self.where}: {field}: got no list, expected a list of messages")
        return list(value)

    def one_of(self, field: str, values: Mapping[str, str]) -> str:
        """What the value of a field stands for."""
        value = str(self.there(field)).strip().lower()
        value = value.removesuffix(".0")  # a column of whole numbers with a gap comes out of pandas as floats
        if value not in values:
            raise InputError(f"{self.where}: {field}: got {value!r}, expected one of {', '.join(values)}")
        return values[value]

    def named(self, prefix: str) -> list[tuple[str, Any]]:
        """The fields whose name is ``prefix`` and a number, in the order of the numbers."""
        numbered = [
            (int(match[1]), field)
            for field in self._fields
            if (match := re.fullmatch(f"{re.escape(prefix)}(\\d+)", str(field))) and self.get(field) is not None
        ]
        return [(field, self._fields[field]) for _, field in sorted(numbered)]

    def meta(self, **fields: str) -> dict[str, Any]:
        """Fields that travel along, by the name that they get."""
        return {name: self.get(field) for name, field in fields.items()}
