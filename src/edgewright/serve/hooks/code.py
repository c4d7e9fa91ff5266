"""A `processor.py`: what it may define, checked without running it; and the functions that it defines, once it may run."""

from __future__ import annotations

import ast
import hashlib
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.serve.protocol.datatypes import NUMPY_NAMES

FILE = "processor.py"
#: Hooks by name, with the arguments that come before those of the request.
HOOKS: Mapping[str, tuple[str, ...]] = {"preprocess": ("x",), "run_model": ("model", "x"), "postprocess": ("x",)}
_LARGEST_BYTES = 2**20


@dataclass(frozen=True)
class Hooks:
    """What a `processor.py` defines.

    Attributes:
        functions: Hooks by name; those that are not defined are not in it.
        path: The file.
        inputs: What clients send, where it differs from the network's own inputs; None where it does not.
        outputs: What they get, likewise.
    """

    functions: Mapping[str, Callable[..., Any]]
    path: Path
    inputs: tuple[TensorInfo, ...] | None = None
    outputs: tuple[TensorInfo, ...] | None = None


def check(source: bytes, where: str) -> None:
    """Say what is wrong with a processor, without running a line of it.

    Raises:
        EdgewrightError: E240 with the line.
    """
    if len(source) > _LARGEST_BYTES:
        raise EdgewrightError("E240", f"`{where}` is larger than {_LARGEST_BYTES} bytes")
    try:
        tree = ast.parse(source, where)
    except SyntaxError as problem:
        raise EdgewrightError("E240", f"`{where}` is not Python: {problem.msg} (line {problem.lineno})") from None
    except (ValueError, RecursionError, MemoryError) as problem:  # zero bytes, nesting beyond any sense
        raise EdgewrightError("E240", f"`{where}` is not Python: {problem}") from None
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if not found.keys() & HOOKS.keys():
        raise EdgewrightError("E240", f"`{where}` defines none of the hooks {', '.join(HOOKS)}")
    for name, leading in HOOKS.items():
        node = found.get(name)
        if node is None:
            continue
        given = [*node.args.posonlyargs, *node.args.args]
        required = len(given) - len(node.args.defaults)
        if isinstance(node, ast.AsyncFunctionDef) or len(given) < len(leading) or required > len(leading):
            shown = f"{name}({', '.join(leading)}, **kw)"
            raise EdgewrightError("E240", f"`{name}` in `{where}` (line {node.lineno}) must be a function {shown}")


def load(bundle: Bundle) -> Hooks:
    """The hooks of a bundle. This runs the file's top level: only where the operator allows that.

    Raises:
        EdgewrightError: E220 where the file is not what the manifest names, E240 where it cannot be used.
    """
    path = bundle.path / FILE
    try:
        source = path.read_bytes()
    except OSError as problem:
        raise EdgewrightError("E220", f"bundle `{bundle.path}` lacks its file `{FILE}`: {problem.strerror}") from None
    # the very bytes that run are hashed: the file may have changed since the bundle was opened
    if FILE not in bundle.hooks or hashlib.sha256(source).hexdigest() != bundle.hooks[FILE][0]:
        raise EdgewrightError("E220", f"file `{FILE}` of bundle `{bundle.path}` was changed after it was added")
    check(source, FILE)
    module = types.ModuleType("processor")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - allowed by the operator, hash checked
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        raise EdgewrightError("E240", f"`{FILE}` cannot be loaded: {place(problem, path)}") from None
    functions = {name: value for name in HOOKS if callable(value := getattr(module, name, None))}
    return Hooks(
        functions,
        path,
        _infos(getattr(module, "INPUTS", None), "INPUTS"),
        _infos(getattr(module, "OUTPUTS", None), "OUTPUTS"),
    )


def place(problem: BaseException, path: Path) -> str:
    """What went wrong and at which line of the processor; neither its message, which may hold anything, nor other files."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(path)]
    where = f"line {lines[-1]} of {FILE}" if lines else FILE
    return f"{type(problem).__name__} at {where}"


def _infos(declared: Any, where: str) -> tuple[TensorInfo, ...] | None:
    """`{"text": ("BYTES", [-1])}` as types of tensors; -1 is any size."""
    if declared is None:
        return None
    try:
        infos = [_info(name, datatype, shape) for name, (datatype, shape) in declared.items()]
        if not infos:
            raise ValueError("it names no tensor")
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise EdgewrightError(
            "E240", f'`{where}` in `{FILE}` must be as {{"text": ("BYTES", [-1])}}: {problem}'
        ) from None
    return tuple(infos)


def _info(name: Any, datatype: Any, shape: Any) -> TensorInfo:
    if not isinstance(name, str) or not all(type(size) is int and size >= -1 for size in shape):
        raise ValueError(f"{name!r} has shape {shape!r}")
    # an open first axis is the batch; other open ones bear no name, so that nothing is taken to be equal
    sizes = tuple((None if place else "N") if size == -1 else size for place, size in enumerate(shape))
    return TensorInfo(name, NUMPY_NAMES[datatype], sizes)
