"""The part of JSON schema that csp_embed's schema of instruction sets uses, checked by itself.

Independent of pydantic, which writes the schema: so that the exported text is what is tested.
"""

from __future__ import annotations

import re
from typing import Any

_KINDS: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip
_KNOWN = {
    "$ref", "$defs", "$schema", "title", "description", "default", "anyOf", "type", "const", "enum",
    "pattern", "properties", "required", "additionalProperties", "items", "propertyNames",
    "patternProperties",
}  # fmt: skip


def valid(document: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> bool:
    """Whether the document is of that schema. Raises: KeyError for a keyword not known here."""
    root = schema if root is None else root
    unknown = set(schema) - _KNOWN
    if unknown:
        raise KeyError(f"keyword {unknown.pop()}")
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if not valid(document, root["$defs"][name], root):
            return False
    if "anyOf" in schema and not any(valid(document, s, root) for s in schema["anyOf"]):
        return False
    if "const" in schema and document != schema["const"]:
        return False
    if "enum" in schema and document not in schema["enum"]:
        return False
    kind = schema.get("type")
    if kind is not None:
        if not isinstance(document, _KINDS[kind]):
            return False
        if isinstance(document, bool) and kind in ("integer", "number"):
            return False
    text = document if isinstance(document, str) and "pattern" in schema else None
    if text is not None and re.search(schema["pattern"], text) is None:
        return False
    if isinstance(document, list) and "items" in schema:
        return all(valid(x, schema["items"], root) for x in document)
    return not isinstance(document, dict) or _members(document, schema, root)


def _members(document: dict[Any, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    known, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
    patterns = schema.get("patternProperties", {})
    if any(k not in document for k in schema.get("required", ())):
        return False
    for key, value in document.items():
        names = schema.get("propertyNames")
        if not isinstance(key, str) or (names is not None and not valid(key, names, root)):
            return False
        rules = [s for p, s in patterns.items() if re.search(p, key)]
        if key in known:
            rules.append(known[key])
        elif not rules:
            if extra is False:
                return False
            rules += [extra] if isinstance(extra, dict) else []
        if not all(valid(value, s, root) for s in rules):
            return False
    return True
