"""Manifests against the types of Kubernetes' API, as its own client publishes them: a wrong field name is found here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

models = pytest.importorskip("kubernetes.client.models", reason="needs kubernetes (pip install kubernetes)")

from edgewright.serve.fleet.kubernetes import Deployment, kserve, kubernetes  # noqa: E402

DEPLOYMENT = Deployment("reader", "registry.example/edgewright:1", "bundles", arguments=("--watch", "5"))
#: Python's types by the names that the client has for fields.
PLAIN = {"str": str, "int": int, "bool": bool, "object": object, "float": float}


def wrong(value: Any, kind: str, where: str) -> Iterator[str]:
    """What of a document does not fit a type of the API, `V1Pod`, `list[V1Container]` or `dict(str, str)`."""
    if match := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for place, item in enumerate(value):
            yield from wrong(item, match[1], f"{where}[{place}]")
    elif match := re.fullmatch(r"[Dd]ict[\[(](\w+), (.*)[\])]", kind):
        for key, item in value.items():
            yield from wrong(item, match[2], f"{where}.{key}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            yield f"{where} is {value!r}, no {kind}"
    else:
        model = getattr(models, kind)
        names = {written: own for own, written in model.attribute_map.items()}
        for key, item in value.items():
            if key not in names:
                yield f"{where}.{key} is no field of {kind}"
            else:
                yield from wrong(item, model.openapi_types[names[key]], f"{where}.{key}")
        for own, field in getattr(model, "model_fields", {}).items():
            if field.is_required() and model.attribute_map[own] not in value:
                yield f"{where}.{model.attribute_map[own]} is missing"


def kind_of(item: dict[str, Any]) -> str:
    """`apps/v1`, `Deployment` is V1Deployment."""
    return item["apiVersion"].rpartition("/")[2].title() + item["kind"]


def test_every_field_is_one_of_the_api() -> None:
    items = kubernetes(DEPLOYMENT)["items"]
    assert [problem for item in items for problem in wrong(item, kind_of(item), item["kind"])] == []


def test_containers_and_volumes_of_a_serving_runtime_are_those_of_pods() -> None:
    runtime = kserve(DEPLOYMENT)["items"][0]["spec"]
    found = [*wrong(runtime["containers"], "list[V1Container]", ""), *wrong(runtime["volumes"], "list[V1Volume]", "")]
    assert found == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("spec",), "replica"),
        (("spec", "template", "spec"), "terminationGraceSeconds"),
        (("spec", "template", "spec", "containers", 0, "readinessProbe"), "failureThresholds"),
    ],
)
def test_a_wrong_name_is_found(path: tuple[Any, ...], name: str) -> None:
    document = kubernetes(DEPLOYMENT)["items"][0]
    inner = document
    for step in path:
        inner = inner[step]
    inner[name] = 1
    (problem,) = wrong(document, "V1Deployment", "Deployment")
    assert f"{name} is no field of" in problem


def test_a_value_of_a_wrong_kind_is_found() -> None:
    document = kubernetes(DEPLOYMENT)["items"][0]
    document["spec"]["replicas"] = "2"
    assert list(wrong(document, "V1Deployment", "Deployment")) == ["Deployment.spec.replicas is '2', no int"]


def test_a_field_that_has_to_be_there_is_missed() -> None:
    document = kubernetes(DEPLOYMENT)["items"][0]
    if not hasattr(models.V1Deployment, "model_fields"):
        pytest.skip("this version of the client does not say what is required")
    del document["spec"]["selector"]
    assert list(wrong(document, "V1Deployment", "Deployment")) == ["Deployment.spec.selector is missing"]
