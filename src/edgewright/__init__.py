"""edgewright: a trained network in, the fastest deployment that is proven to give the same answers out.

    import edgewright as ew

    model = ew.load("zoo:efficientnet-lite0")
    samples = ew.Samples.open("photos/", model)
    outcome = ew.deploy(model, samples, runtimes=("onnxruntime", "openvino"), out="runs/x")

Public names are imported on first use, so that `import edgewright` stays quick.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.bench import BenchPlan, bench
    from edgewright.bundle import Bundle
    from edgewright.compress import compress
    from edgewright.convert import convert
    from edgewright.deploy import SearchPlan, deploy
    from edgewright.errors import EdgewrightError, EdgewrightWarning
    from edgewright.inspect import inspect
    from edgewright.load import load
    from edgewright.locate import locate, locate_source
    from edgewright.model import Model
    from edgewright.pipeline import Part, Pipeline
    from edgewright.recipe import Recipe
    from edgewright.report import report
    from edgewright.samples import Samples
    from edgewright.serve import Server, serve
    from edgewright.session import Session, open
    from edgewright.spec import ImageInput, Spec, TensorInput
    from edgewright.target import Target
    from edgewright.verify import verify

_HOMES = {
    "BenchPlan": "bench",
    "Bundle": "bundle",
    "EdgewrightError": "errors",
    "EdgewrightWarning": "errors",
    "ImageInput": "spec",
    "Model": "model",
    "Part": "pipeline",
    "Pipeline": "pipeline",
    "Recipe": "recipe",
    "Samples": "samples",
    "SearchPlan": "deploy",
    "Server": "serve",
    "Session": "session",
    "Spec": "spec",
    "Target": "target",
    "TensorInput": "spec",
    "bench": "bench",
    "compress": "compress",
    "convert": "convert",
    "deploy": "deploy",
    "inspect": "inspect",
    "load": "load",
    "locate": "locate",
    "locate_source": "locate",
    "open": "session",
    "report": "report",
    "serve": "serve",
    "verify": "verify",
}
__all__ = [
    "BenchPlan",
    "Bundle",
    "EdgewrightError",
    "EdgewrightWarning",
    "ImageInput",
    "Model",
    "Part",
    "Pipeline",
    "Recipe",
    "Samples",
    "SearchPlan",
    "Server",
    "Session",
    "Spec",
    "Target",
    "TensorInput",
    "bench",
    "compress",
    "convert",
    "deploy",
    "inspect",
    "load",
    "locate",
    "locate_source",
    "open",
    "report",
    "serve",
    "verify",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edgewright.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package, in which a verb wins over the module of the same name.

    Importing `edgewright.verify` would bind the module to `ew.verify`; `ew.verify(...)` must stay a call.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
