"""The API as an OpenAPI document, and a page that shows it: one static file, nothing fetched from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import edgewright

#: The page runs no script and loads nothing.
POLICY = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}

_NAME = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string"},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        "parameters": {
            "type": "object",
            "properties": {
                "priority": {"type": "integer", "description": "lower is more urgent"},
                "timeout": {"type": "integer", "description": "microseconds after which the request is not run"},
                "binary_data_output": {"type": "boolean"},
            },
        },
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_INFER_CODES = {
    "429": "over capacity; Retry-After says when to come again",
    "503": "the server is starting or stopping",
    "504": "the request's time was up",
}
_BODY_CODES = {"408": "the body came too slowly", "413": "the body is too large", "415": "unknown content-encoding"}


def openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    paths = {
        "/v2": _get("What the server is"),
        "/v2/health/live": _get("Whether the process answers"),
        "/v2/health/ready": _get("Whether it takes requests", codes={"503": "not now"}),
        "/v2/models/stats": _get("Statistics of all models"),
        "/v2/repository/index": _post("Every bundle that was seen, with its state", body={"type": "object"}),
        "/v2/repository/models/{model}/load": _post(
            "Load a model (needs the token)", [_NAME], {"type": "object"}, _ADMIN
        ),
        "/v2/repository/models/{model}/unload": _post(
            "Stop serving it (needs the token)", [_NAME], {"type": "object"}, _ADMIN
        ),
        "/metrics": _get("Figures for Prometheus", kind="text/plain"),
        "/openapi.json": _get("This document"),
    }
    for path, parameters in ((model, [_NAME]), (version, [_NAME, _VERSION])):
        paths[path] = _get("Inputs and outputs", parameters)
        paths[f"{path}/ready"] = _get("Whether it takes requests", parameters, {"503": "not now"})
        paths[f"{path}/config"] = _get("How it is served", parameters)
        paths[f"{path}/stats"] = _get("Counts and times", parameters)
        paths[f"{path}/infer"] = _post(
            "Run it on tensors, in JSON or binary", parameters, _REQUEST, {**_INFER_CODES, **_BODY_CODES}
        )
        paths[f"{path}/predict"] = _predict(parameters)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgewright", "version": edgewright.__version__},
        "paths": paths,
    }


_ADMIN = {"401": "no token, or a wrong one", "403": "not allowed on this server"}


def page(models: Sequence[str]) -> str:
    """The document for people, and the models that are served."""
    rows = []
    for path, verbs in openapi()["paths"].items():
        for verb, about in verbs.items():
            codes = ", ".join(about["responses"])
            cells = (verb.upper(), path, about["summary"], codes)
            rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    listed = "".join(f"<li><code>{html.escape(name)}</code></li>" for name in dict.fromkeys(models))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>edgewright</title><style>'
        "body{font:16px/1.5 system-ui;max-width:72rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}"
        "td,th{text-align:left;padding:.2rem .8rem;border-bottom:1px solid #ccc}td:nth-child(-n+2){font-family:monospace}"
        f"</style><h1>edgewright</h1><p>Open Inference Protocol v2.</p><h2>Models</h2><ul>{listed}</ul>"
        "<h2>Paths</h2><table><tr><th>verb<th>path<th>what<th>answers</tr>"
        f"{''.join(rows)}</table><p><a href='/openapi.json'>openapi.json</a></p></html>"
    )


def _get(
    summary: str,
    parameters: Sequence[Mapping[str, Any]] = (),
    codes: Mapping[str, str] | None = None,
    kind: str = "application/json",
) -> dict[str, Any]:
    return {"get": _operation(summary, parameters, codes or {}, {kind: {}})}


def _post(
    summary: str,
    parameters: Sequence[Mapping[str, Any]] = (),
    body: Mapping[str, Any] | None = None,
    codes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    operation = _operation(summary, parameters, {"400": "the request cannot be used", **(codes or {})}, _JSON)
    operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return {"post": operation}


_JSON: dict[str, Any] = {"application/json": {}}


def _predict(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    codes = {"400": "no photo, or a model that takes none", **_INFER_CODES, **_BODY_CODES}
    operation = _operation(
        "A photo in; its result, or with Accept: image/png the photo with the result drawn on it",
        parameters,
        codes,
        {**_JSON, "image/png": {}},
    )
    operation["requestBody"] = {"required": True, "content": {"image/*": {}}}
    return {"post": operation}


def _operation(
    summary: str, parameters: Sequence[Mapping[str, Any]], codes: Mapping[str, str], content: Mapping[str, Any]
) -> dict[str, Any]:
    unknown = {"404": "no such model"} if parameters else {}
    errors = {
        code: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for code, text in {**unknown, **codes}.items()
    }
    return {
        "summary": summary,
        "parameters": [*parameters],
        "responses": {"200": {"description": "done", "content": {**content}}, **errors},
    }
