"""Write docs/schemas/*.json, the JSON schemas of what `--json` prints, from the record dataclasses; --check only compares.

python tests/docs/make_schemas.py [--check]
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.environment import Environment
from edgewright.records import BenchResult, DeployOutcome, Fastest, InspectReport, LocateReport, VerifyReport

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schemas"
RECORDS = {"deploy": DeployOutcome, "verify": VerifyReport, "inspect": InspectReport}
PLAIN = {str: {"type": "string"}, int: {"type": "integer"}, bool: {"type": "boolean"}, type(None): {"type": "null"}}
NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}  # JSON has no such numbers
TEXTS = {"type": "array", "items": {"type": "string"}}


def schemas() -> dict[str, dict[str, Any]]:
    """Name of the command -> schema of the document that it prints with --json."""
    found = {name: whole(lambda defs, record=record: of(record, defs)) for name, record in RECORDS.items()}
    found["bench"] = whole(
        lambda defs: table(
            {
                "results": {"type": "array", "minItems": 1, "items": of(BenchResult, defs)},
                "fastest": {"type": "array", "minItems": 1, "items": of(Fastest, defs)},
            }
        )
    )
    found["locate"] = whole(  # one stage, or several in the order of the command line
        lambda defs: {
            "anyOf": [
                of(LocateReport, defs),
                table({"reports": {"type": "array", "minItems": 2, "items": of(LocateReport, defs)}}),
            ]
        }
    )
    row = table({"name": PLAIN[str], "about": PLAIN[str], "missing": TEXTS}, more=True)
    kinds = ("importers", "zoo", "passes", "runtimes", "tasks", "recipes", "cpus")
    rows = {"type": "array", "items": row}
    found["list"] = whole(lambda _: {**table(dict.fromkeys(kinds, rows)), "required": [], "minProperties": 1})
    runtime = table({"name": PLAIN[str], "works": PLAIN[bool], "missing": TEXTS, "about": PLAIN[str]})
    found["doctor"] = whole(
        lambda defs: table(
            {
                "environment": of(Environment, defs),
                "has_int8_dot": PLAIN[bool],
                "runtimes": {"type": "array", "items": runtime},
            }
        )
    )
    code = {"type": "string", "pattern": "^E[1-4][0-9]{2}$"}
    hint = {"anyOf": [PLAIN[str], PLAIN[type(None)]]}
    found["error"] = whole(
        lambda _: table({"error": table({"code": code, "message": PLAIN[str], "details": TEXTS, "hint": hint})})
    )
    return found


def whole(make: Any) -> dict[str, Any]:
    """A schema document with the definitions that it uses."""
    defs: dict[str, Any] = {}
    body = make(defs)
    tail = {"$defs": dict(sorted(defs.items()))} if defs else {}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, **tail}


def table(properties: Mapping[str, Any], *, more: bool = False) -> dict[str, Any]:
    """An object that has all of `properties`, and with `more` perhaps others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": more,
    }


def of(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type hint; dataclasses become definitions in `defs`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint is float:
        return NUMBER
    if hint in PLAIN:
        return PLAIN[hint]
    if dataclasses.is_dataclass(hint):
        return record(hint, defs)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [of(argument, defs) for argument in arguments]}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": of(arguments[0], defs)}
    if origin is tuple:
        size = len(arguments)
        return {"type": "array", "prefixItems": [of(a, defs) for a in arguments], "minItems": size, "maxItems": size}
    assert origin is Mapping, f"no schema for {hint}"
    return {"type": "object", "additionalProperties": of(arguments[1], defs)}


def record(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """A reference to the definition of a record, made on its first use; the title is its docstring's first line."""
    if kind.__name__ not in defs:
        defs[kind.__name__] = {}
        hints = typing.get_type_hints(kind)
        fields = {field.name: of(hints[field.name], defs) for field in dataclasses.fields(kind)}
        title = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
        defs[kind.__name__] = {"title": title, **table(fields)}
    return {"$ref": f"#/$defs/{kind.__name__}"}


def stale() -> list[str]:
    """Names of the schema files that differ from what the records say, missing and left-over ones too."""
    wanted = {f"{name}.json": json.dumps(schema, indent=1) + "\n" for name, schema in schemas().items()}
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main() -> int:
    """Write the files, or with --check name those that are stale; the exit code."""
    if "--check" in sys.argv:
        print(*(f"stale: docs/schemas/{name}" for name in stale()), sep="\n")
        return 1 if stale() else 0
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
