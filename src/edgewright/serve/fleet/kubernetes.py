"""Manifests for Kubernetes (Deployment, Service, autoscaler, disruption budget) and for KServe (ServingRuntime, service).

Source: kubernetes.io API reference, apps/v1, autoscaling/v2, policy/v1; kserve.github.io, ServingRuntime v1alpha1 and
InferenceService v1beta1. The document is a JSON list, which `kubectl apply -f` reads as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgewright.errors import EdgewrightError

#: Seconds between a pod's leaving the service and its SIGTERM: until then proxies may still send requests.
_LEAVE_S = 5
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


@dataclass(frozen=True)
class Deployment:
    """What is deployed.

    Attributes:
        name: Of everything that is made; with KServe also the model's.
        image: A container image in which `edgewright` is a command.
        claim: PersistentVolumeClaim whose root holds the bundles as `edgewright serve` takes them.
        replicas: Pods at least.
        most: Pods at most; more come where the CPU is used to 70 %.
        cpu: Of each pod, as "2" or "500m".
        memory: Of each pod, as "1Gi".
        drain_s: Seconds to finish what was accepted.
        arguments: Further ones for `edgewright serve`.
    """

    name: str
    image: str
    claim: str
    replicas: int = 2
    most: int = 8
    cpu: str = "1"
    memory: str = "1Gi"
    drain_s: int = 30
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("name", "claim"):
            if not _NAME.fullmatch(getattr(self, key)):
                raise EdgewrightError(
                    "E103", f"`{key}` is {getattr(self, key)!r}, but must be lower-case letters, digits and hyphens"
                )
        if not self.image or not self.image.isprintable() or " " in self.image:
            raise EdgewrightError("E103", f"`image` is {self.image!r}, which is no name of an image")
        for key in ("cpu", "memory"):
            if not _QUANTITY.fullmatch(getattr(self, key)):
                raise EdgewrightError(
                    "E103", f"`{key}` is {getattr(self, key)!r}, but must be a quantity as 500m or 1Gi"
                )
        if not 1 <= self.replicas <= self.most <= 10_000:
            raise EdgewrightError("E103", f"`replicas` is {self.replicas}, but must be 1 to `most`, {self.most}")
        if not 0 <= self.drain_s <= 86400:
            raise EdgewrightError("E103", f"`drain_s` is {self.drain_s}, but must be 0 to 86400")


def kubernetes(deployment: Deployment) -> dict[str, Any]:
    """Deployment, Service, HorizontalPodAutoscaler and PodDisruptionBudget as one list."""
    labels = {"app.kubernetes.io/name": "edgewright", "app.kubernetes.io/instance": deployment.name}
    meta = {"name": deployment.name, "labels": labels}
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": deployment.drain_s + _LEAVE_S + 5,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(deployment, "server", "/models", 8000, grpc=8001)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": deployment.claim, "readOnly": True}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    spec = {
        "replicas": deployment.replicas,
        "selector": {"matchLabels": labels},
        # a new pod is ready before an old one goes
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return _list(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {
                "selector": labels,
                "ports": [
                    {"name": "http", "port": 8000, "targetPort": "http", "appProtocol": "http"},
                    {"name": "grpc", "port": 8001, "targetPort": "grpc", "appProtocol": "grpc"},
                ],
            },
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": meta,
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name},
                "minReplicas": deployment.replicas,
                "maxReplicas": deployment.most,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                    }
                ],
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        },
    )


def kserve(deployment: Deployment) -> dict[str, Any]:
    """ServingRuntime and InferenceService; the claim's root holds the bundle under the service's name."""
    container = _container(deployment, "kserve-container", "/mnt/models", 8080)
    container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - inside the container
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": f"{deployment.name}-edgewright"},
        "spec": {
            "supportedModelFormats": [{"name": "edgewright", "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2"],
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    predictor = {
        "minReplicas": deployment.replicas,
        "maxReplicas": deployment.most,
        "terminationGracePeriodSeconds": deployment.drain_s + _LEAVE_S + 5,
        "model": {
            "modelFormat": {"name": "edgewright"},
            "protocolVersion": "v2",
            "runtime": f"{deployment.name}-edgewright",
            "storageUri": f"pvc://{deployment.claim}",
        },
    }
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": deployment.name},
        "spec": {"predictor": predictor},
    }
    return _list(runtime, service)


def _list(*items: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


def _container(deployment: Deployment, name: str, folder: str, port: int, *, grpc: int | None = None) -> dict[str, Any]:
    resources = {"cpu": deployment.cpu, "memory": deployment.memory}

    def probe(path: str, period_s: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": port},
            "periodSeconds": period_s,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        }

    arguments = [folder, "--host", "0.0.0.0", "--http", str(port), "--drain", str(deployment.drain_s), "--json"]  # noqa: S104
    ports = [{"name": "http", "containerPort": port}]
    if grpc is not None:  # KServe takes one port of a container
        arguments += ["--grpc", str(grpc)]
        ports.append({"name": "grpc", "containerPort": grpc})
    return {
        "name": name,
        "image": deployment.image,
        "command": ["edgewright", "serve"],
        "args": [*arguments, *deployment.arguments],
        "ports": ports,
        # memory is a limit, since what is beyond would be taken from others; the CPU is none: it would stop short runs
        "resources": {"requests": resources, "limits": {"memory": deployment.memory}},
        "startupProbe": probe("/v2/health/ready", 2, 150),
        "readinessProbe": probe("/v2/health/ready", 2, 2),
        "livenessProbe": probe("/v2/health/live", 10, 3),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_LEAVE_S)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "models", "mountPath": folder, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the container
        ],
    }
