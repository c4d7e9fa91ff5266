"""The cases over HTTP. Source: open-inference-protocol, specification/protocol/inference_rest.md; Triton's extensions."""

from __future__ import annotations

import http.client
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from edgewright.serve.check.cases import Subject, WrongError
from edgewright.serve.protocol.datatypes import dtype_of, pack_bytes, unpack_bytes

_TIMEOUT_S = 30.0
_LARGEST_BYTES = 2**28  # of an answer
Cases = dict[str, tuple[str, Callable[[], str]]]


class Answer(NamedTuple):
    """Status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        """The JSON in it.

        Raises:
            WrongError: It is none, or not a 200.
        """
        if self.status != 200:
            raise WrongError(self.described)
        try:
            return json.loads(self.body)
        except ValueError:
            raise WrongError("no JSON") from None

    @property
    def described(self) -> str:
        """The status, and the message of an error."""
        text = self.body[:120].decode("utf-8", "replace").strip() if self.status >= 400 else ""
        return f"{self.status} {text}".strip()


class Client:
    """Requests to one server, each over a connection of its own: what one does to it does not touch the next."""

    def __init__(self, host: str, port: int, prefix: str = "", *, tls: bool = False) -> None:
        self._kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        self._host, self._port, self._prefix = host, port, prefix

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request and its answer."""
        connection = self._kind(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            chunked = not isinstance(body, bytes | None)
            connection.request(method, f"{self._prefix}/{path}", body, dict(headers or {}), encode_chunked=chunked)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read(_LARGEST_BYTES))
        finally:
            connection.close()


def model_path(model: str) -> str:
    """Where a model lies."""
    return f"v2/models/{quote(model, safe='@')}"


class Asker:
    """The cases about one model."""

    def __init__(self, client: Client, subject: Subject) -> None:
        self._client = client
        self._subject = subject
        self._path = model_path(subject.model)

    def cases(self) -> Cases:
        """All of them, in order; the first inference is what others compare with."""
        return {**self._about(), **self._inference(), **self._mistakes(), **self._extensions(), **self._after()}

    def _about(self) -> Cases:
        get, path = self._get, self._path
        found: Cases = {
            "GET v2/health/live": ("200", lambda: self._status("GET", "v2/health/live")),
            "GET v2/health/ready": ("200", lambda: self._status("GET", "v2/health/ready")),
            "GET v2": ("name, version, extensions", lambda: get("v2", "name", "version", "extensions")),
            "GET v2/models/NAME": ("name, inputs, outputs", lambda: get(path, "name", "inputs", "outputs")),
            "GET v2/models/NAME/ready": ("200", lambda: self._status("GET", f"{path}/ready")),
            "unknown path": ("4xx", lambda: self._refused("GET", "v2/nothing/of/that/name")),
            "unknown model": ("4xx", lambda: self._refused("GET", "v2/models/nothing-of-that-name")),
            "unknown version": ("4xx", lambda: self._refused("GET", f"{path}/versions/987654321")),
        }
        if self._subject.versions:
            first = f"{path}/versions/{self._subject.versions[0]}"
            found["GET v2/models/NAME/versions/N"] = ("name", lambda: get(first, "name"))
        return found

    def _inference(self) -> Cases:
        subject, gzip = self._subject, {"content-encoding": "gzip"}
        first = subject.outputs[0].name
        binary_out: dict[str, Any] = {"parameters": {"binary_data_output": True}}
        found: Cases = {
            "infer, JSON": ("outputs as described", self._first),
            "infer, nested lists": ("the same answer", lambda: self._same(self._json(nested=True))),
            "infer, id": ("the id comes back", self._id),
            "infer, one output asked for": ("that one", lambda: self._only(first)),
            "infer, binary input": ("the same answer", lambda: self._same(*self._binary())),
            "infer, binary output": ("the same answer", lambda: self._same(self._json(**binary_out))),
            "infer, binary both ways": ("the same answer", lambda: self._same(*self._binary(**binary_out))),
            "infer, gzip": ("the same answer", lambda: self._same(_compressed(self._json(), 31), gzip)),
            "infer, deflate": (
                "the same answer",
                lambda: self._same(_compressed(self._json(), 15), {"content-encoding": "deflate"}),
            ),
            "infer, answer as gzip": ("the same answer", lambda: self._same(self._json(), {"accept-encoding": "gzip"})),
            "infer, chunked body": ("the same answer", lambda: self._same(iter([self._json()[:7], self._json()[7:]]))),
            "infer, 8 at a time": ("the same answer", self._together),
        }
        return found

    def _mistakes(self) -> Cases:
        first, rest = self._entries()[0], self._entries()[1:]
        flat = len(first["data"])
        rank = len(first["shape"])
        changes: dict[str, dict[str, Any]] = {
            "an unknown input": {"name": "nothing-of-that-name"},
            "another datatype": {"datatype": "INT8" if first["datatype"] != "INT8" else "FP32"},
            "an unknown datatype": {"datatype": "FP31"},
            "one axis more": {"shape": [*first["shape"], 1]},
            "more values than its shape": {"data": [*first["data"], first["data"][0]]},
            "fewer values than its shape": {"data": first["data"][: flat - 1]},
            "a negative size": {"shape": [-1] * max(1, rank)},
            "a huge size": {"shape": [2**62, *first["shape"][1:]]},
            "sizes whose product overflows": {"shape": [2**32] * max(2, rank)},
            "a value of another kind": {"data": [{}] * flat},
            "a shape that is no list": {"shape": "1"},
        }
        bodies: dict[str, bytes] = {
            f"infer, {name}": _dump({"inputs": [{**first, **change}, *rest]}) for name, change in changes.items()
        }
        bodies |= {
            "infer, an input twice": _dump({"inputs": [first, first, *rest]}),
            "infer, no inputs": _dump({"inputs": []}),
            "infer, an unknown output": self._json(outputs=[{"name": "nothing-of-that-name"}]),
            "infer, no JSON": b"{",
            "infer, an empty body": b"",
            "infer, JSON that is no object": b"[]",
            "infer, deeply nested JSON": b'{"inputs": ' + b"[" * 100_000,
            "infer, an input in shared memory that is not there": _dump(
                {"inputs": [_shared(first), *map(_shared, rest)]}
            ),
        }
        found: Cases = {case: ("4xx", self._refusal(body)) for case, body in bodies.items()}
        body, headers = self._binary()
        length = headers["inference-header-content-length"]
        for case, data, text in (
            ("infer, binary data cut short", body[:-1], length),
            ("infer, binary data too long", body + b"0000", length),
            ("infer, JSON said to be longer than the body", body, str(len(body) + 1)),
            ("infer, a length of the JSON that is no number", body, "x"),
        ):
            found[case] = ("4xx", self._refusal(data, {"inference-header-content-length": text}))
        found["infer, a gzip body that is none"] = ("4xx", self._refusal(self._json(), {"content-encoding": "gzip"}))
        found["infer on an unknown model"] = (
            "4xx",
            # small: who refuses before the body has come may close the connection under a large one
            lambda: self._refused("POST", "v2/models/nothing-of-that-name/infer", b'{"inputs": []}', _JSON),
        )
        found["GET infer"] = ("4xx", lambda: self._refused("GET", f"{self._path}/infer"))
        return found

    def _extensions(self) -> Cases:
        unload = "v2/repository/models/nothing-of-that-name/unload"
        return {
            "GET config": ("name, input, output", lambda: self._get(f"{self._path}/config", "name", "input", "output")),
            "GET stats": ("counts the inference", self._statistics),
            "POST v2/repository/index": ("lists the model", self._index),
            "unload an unknown model": ("4xx", lambda: self._refused("POST", unload, b"{}")),
        }

    def _after(self) -> Cases:
        return {
            "afterwards: ready": ("200", lambda: self._status("GET", "v2/health/ready")),
            "afterwards: infer": ("the same answer", lambda: self._same(self._json())),
        }

    def _status(self, method: str, path: str) -> str:
        answer = self._client.ask(method, path)
        if answer.status != 200:
            raise WrongError(answer.described)
        return "200"

    def _refused(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> str:
        answer = self._client.ask(method, path, body, headers)
        if not 400 <= answer.status < 500:
            raise WrongError(answer.described)
        return answer.described

    def _refusal(self, body: bytes, headers: Mapping[str, str] | None = None) -> Callable[[], str]:
        return lambda: self._refused("POST", f"{self._path}/infer", body, {**_JSON, **(headers or {})})

    def _get(self, path: str, *keys: str) -> str:
        document = self._client.ask("GET", path).document()
        missing = [key for key in keys if not isinstance(document, dict) or key not in document]
        if missing:
            raise WrongError(f"without {', '.join(missing)}")
        return ", ".join(keys)

    def _entries(self) -> list[dict[str, Any]]:
        return [_entry(tensor, self._subject.arrays[tensor.name]) for tensor in self._subject.inputs]

    def _json(self, *, nested: bool = False, **more: Any) -> bytes:
        entries = self._entries()
        if nested:
            for entry in entries:
                entry["data"] = self._subject.arrays[entry["name"]].tolist()
        return _dump({"inputs": entries, **more})

    def _binary(self, **more: Any) -> tuple[bytes, dict[str, str]]:
        entries, parts = self._entries(), []
        for entry in entries:
            array = self._subject.arrays[entry["name"]]
            parts.append(pack_bytes(array.reshape(-1)) if array.dtype.kind == "O" else array.tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
            del entry["data"]
        head = _dump({"inputs": entries, **more})
        return b"".join([head, *parts]), {"inference-header-content-length": str(len(head))}

    def _infer(self, body: Any, headers: Mapping[str, str] | None = None) -> tuple[Any, dict[str, np.ndarray]]:
        kind = {} if headers and "inference-header-content-length" in headers else _JSON
        return _outputs(self._client.ask("POST", f"{self._path}/infer", body, {**kind, **(headers or {})}))

    def _same(self, body: Any, headers: Mapping[str, str] | None = None) -> str:
        return self._subject.compare(self._infer(body, headers)[1])

    def _first(self) -> str:
        _, outputs = self._infer(self._json())
        described = {tensor.name: tensor for tensor in self._subject.outputs}
        if set(outputs) != set(described):
            raise WrongError(f"outputs {sorted(outputs)}, but described are {sorted(described)}")
        for name, array in outputs.items():
            shape = described[name].shape
            if len(shape) != array.ndim or any(a not in (-1, b) for a, b in zip(shape, array.shape, strict=True)):
                raise WrongError(f"`{name}` has shape {list(array.shape)}, but is described as {list(shape)}")
        self._subject.answer = outputs
        return "outputs as described"

    def _id(self) -> str:
        document, _ = self._infer(self._json(id="case-7"))
        if document.get("id") != "case-7":
            raise WrongError(f"id {document.get('id')!r}")
        return "the id comes back"

    def _only(self, name: str) -> str:
        _, outputs = self._infer(self._json(outputs=[{"name": name}]))
        if list(outputs) != [name]:
            raise WrongError(f"outputs {sorted(outputs)}")
        return "that one"

    def _together(self) -> str:
        with ThreadPoolExecutor(8) as pool:
            return [*pool.map(lambda _: self._same(self._json()), range(8))][-1]

    def _statistics(self) -> str:
        def count() -> int:
            (entry, *_) = self._client.ask("GET", f"{self._path}/stats").document()["model_stats"]
            return int(entry["inference_stats"]["success"]["count"])

        before = count()
        self._infer(self._json())
        if count() != before + 1:
            raise WrongError(f"{before} before, {count()} after")
        return "counts the inference"

    def _index(self) -> str:
        answer = self._client.ask("POST", "v2/repository/index", b"{}", _JSON).document()
        if self._subject.model not in [entry.get("name") for entry in answer]:
            raise WrongError(f"lists {len(answer)} others")
        return "lists the model"


_JSON = {"content-type": "application/json"}


def _dump(document: Any) -> bytes:
    return json.dumps(document).encode()


def _entry(tensor: Any, array: np.ndarray) -> dict[str, Any]:
    values = array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16 has no plain numbers
    return {
        "name": tensor.name,
        "shape": list(array.shape),
        "datatype": tensor.datatype,
        "data": values.reshape(-1).tolist(),
    }


def _shared(entry: dict[str, Any]) -> dict[str, Any]:
    about = {"shared_memory_region": "nothing-of-that-name", "shared_memory_byte_size": 4}
    return {**{name: value for name, value in entry.items() if name != "data"}, "parameters": about}


def _compressed(body: bytes, wbits: int) -> bytes:
    deflater = zlib.compressobj(wbits=wbits)
    return deflater.compress(body) + deflater.flush()


def _outputs(answer: Answer) -> tuple[Any, dict[str, np.ndarray]]:
    """An answer's document and its arrays, from JSON and from binary.

    Raises:
        WrongError: It is not a good one.
    """
    if answer.status != 200:
        raise WrongError(answer.described)
    body = answer.body
    if answer.headers.get("content-encoding") in ("gzip", "deflate"):
        body = zlib.decompressobj(47).decompress(body, _LARGEST_BYTES)
    length = int(answer.headers.get("inference-header-content-length", len(body)))
    document, rest = json.loads(body[:length]), memoryview(body)[length:]
    outputs = {}
    for entry in document["outputs"]:
        shape, dtype = tuple(entry["shape"]), dtype_of(entry["datatype"])
        size = (entry.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[entry["name"]] = _from_list(entry["data"], dtype).reshape(shape)
            continue
        raw, rest = rest[:size], rest[size:]
        count = int(np.prod(shape, dtype=object))
        array = unpack_bytes(raw, count) if dtype.kind == "O" else np.frombuffer(raw, dtype)
        outputs[entry["name"]] = array.reshape(shape)
    if len(rest):
        raise WrongError(f"{len(rest)} bytes that no output announces")
    return document, outputs


def _from_list(data: Sequence[Any], dtype: Any) -> np.ndarray:
    while data and isinstance(data[0], list):
        data = [value for part in data for value in part]
    if dtype.kind in "fV":
        return np.array([np.nan if value is None else value for value in data], np.float64).astype(dtype)
    return np.array(data, dtype)
