"""The cases over gRPC. Source: open-inference-protocol, specification/protocol/inference_grpc.md; Triton's extensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgewright.serve.check.cases import Subject, WrongError
from edgewright.serve.grpc import schema
from edgewright.serve.grpc.messages import FIELDS
from edgewright.serve.protocol.datatypes import dtype_of, pack_bytes, unpack_bytes

_TIMEOUT_S = 30.0
#: Codes that say that the client is at fault.
_CLIENT = ("INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION", "UNIMPLEMENTED", "PERMISSION_DENIED")
Cases = dict[str, tuple[str, Callable[[], str]]]


class CodeError(WrongError):
    """A call that ended with an error; its code's name apart."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code} {details}")
        self.code = code


class Asker:
    """The cases about one model."""

    def __init__(self, address: str, subject: Subject) -> None:
        import grpc

        self._channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
        self._subject = subject
        self._protocol = schema.load("inference")

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def cases(self) -> Cases:
        """All of them, in order."""
        model = self._subject.model
        return {
            "ServerLive": ("live", lambda: self._says("ServerLive", "live")),
            "ServerReady": ("ready", lambda: self._says("ServerReady", "ready")),
            "ServerMetadata": ("name, version", lambda: self._says("ServerMetadata", "name", "version")),
            "ModelReady": ("ready", lambda: self._says("ModelReady", "ready", name=model)),
            "ModelMetadata": ("name, inputs", lambda: self._says("ModelMetadata", "name", "inputs", name=model)),
            "ModelMetadata of an unknown model": ("a client's error", self._refusal("ModelMetadata", name="nothing")),
            "ModelInfer, raw contents": ("the same answer", lambda: self._same(self._request())),
            "ModelInfer, values": ("the same answer", lambda: self._same(self._request(raw=False))),
            "ModelInfer, id": ("the id comes back", self._id),
            **{f"ModelInfer, {case}": ("a client's error", ask) for case, ask in self._mistakes().items()},
            "ModelStreamInfer": ("3 answers in order", self._stream),
            "ModelConfig": ("config", lambda: self._says("ModelConfig", "config", name=model)),
            "ModelStatistics": ("model_stats", lambda: self._says("ModelStatistics", "model_stats", name=model)),
            "RepositoryIndex": ("models", lambda: self._says("RepositoryIndex", "models")),
            "RepositoryModelUnload of an unknown model": (
                "a client's error",
                self._refusal("RepositoryModelUnload", model_name="nothing-of-that-name"),
            ),
            "grpc.health.v1.Health/Check": ("SERVING", self._health),
            "afterwards: ModelInfer": ("the same answer", lambda: self._same(self._request())),
        }

    def _mistakes(self) -> dict[str, Callable[[], str]]:
        changes: dict[str, Callable[[Any], None]] = {
            "an unknown model": lambda message: setattr(message, "model_name", "nothing-of-that-name"),
            "an unknown input": lambda message: setattr(message.inputs[0], "name", "nothing-of-that-name"),
            "an unknown datatype": lambda message: setattr(message.inputs[0], "datatype", "FP31"),
            "one axis more": lambda message: _reshape(message, [*message.inputs[0].shape, 1]),
            "a negative size": lambda message: _reshape(message, [-1, *message.inputs[0].shape[1:]]),
            "a huge size": lambda message: _reshape(message, [2**62, *message.inputs[0].shape[1:]]),
            "raw contents cut short": lambda message: message.raw_input_contents.__setitem__(
                0, message.raw_input_contents[0][:-1]
            ),
            "raw contents too many": lambda message: message.raw_input_contents.append(b"0000"),
            "no raw contents": lambda message: message.ClearField("raw_input_contents"),
            "an unknown output": lambda message: message.outputs.add(name="nothing-of-that-name"),
        }

        def ask(change: Callable[[Any], None]) -> Callable[[], str]:
            def call() -> str:
                message = self._request()
                change(message)
                return self._refused("ModelInfer", message)

            return call

        return {name: ask(change) for name, change in changes.items()}

    def _call(self, call: str, message: Any) -> Any:
        return self._send(self._protocol, call, message)

    def _send(self, protocol: schema.Schema, call: str, message: Any) -> Any:
        import grpc

        method = protocol.methods[call]
        path = f"/{protocol.service}/{call}"
        ask = self._channel.unary_unary(path, method.request.SerializeToString, method.response.FromString)
        try:
            return ask(message, timeout=_TIMEOUT_S)
        except grpc.RpcError as problem:
            raise CodeError(problem.code().name, problem.details()) from None

    def _says(self, call: str, *fields: str, **given: Any) -> str:
        answer = self._call(call, self._protocol.methods[call].request(**given))
        missing = [field for field in fields if not getattr(answer, field)]
        if missing:
            raise WrongError(f"without {', '.join(missing)}")
        return ", ".join(fields)

    def _refusal(self, call: str, **given: Any) -> Callable[[], str]:
        return lambda: self._refused(call, self._protocol.methods[call].request(**given))

    def _refused(self, call: str, message: Any) -> str:
        try:
            self._call(call, message)
        except CodeError as problem:
            if problem.code in _CLIENT:
                return problem.code
            raise
        raise WrongError("OK")

    def _request(self, *, raw: bool = True, id: str = "") -> Any:
        raw = raw or any(tensor.datatype not in FIELDS for tensor in self._subject.inputs)  # all inputs in one way
        message = self._protocol.messages["ModelInferRequest"](model_name=self._subject.model, id=id)
        for tensor in self._subject.inputs:
            array = self._subject.arrays[tensor.name]
            texts = array.dtype.kind == "O"
            entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
            if raw:
                message.raw_input_contents.append(pack_bytes(array.reshape(-1)) if texts else array.tobytes())
            else:
                flat = array.reshape(-1).tolist()
                values = [text.encode() for text in flat] if texts else flat
                getattr(entry.contents, FIELDS[tensor.datatype]).extend(values)
        return message

    def _same(self, message: Any) -> str:
        return self._subject.compare(_outputs(self._call("ModelInfer", message)))

    def _id(self) -> str:
        found = self._call("ModelInfer", self._request(id="case-7")).id
        if found != "case-7":
            raise WrongError(f"id {found!r}")
        return "the id comes back"

    def _stream(self) -> str:
        method = self._protocol.methods["ModelStreamInfer"]
        path = f"/{self._protocol.service}/ModelStreamInfer"
        ask = self._channel.stream_stream(path, method.request.SerializeToString, method.response.FromString)
        sent = iter([self._request(id=str(index)) for index in range(3)])
        answers = list(ask(sent, timeout=_TIMEOUT_S))
        for answer in answers:
            if answer.error_message:
                raise WrongError(answer.error_message)
            self._subject.compare(_outputs(answer.infer_response))
        if [answer.infer_response.id for answer in answers] != ["0", "1", "2"]:
            raise WrongError(f"ids {[answer.infer_response.id for answer in answers]}")
        return "3 answers in order"

    def _health(self) -> str:
        health = schema.load("health")
        status = self._send(health, "Check", health.messages["HealthCheckRequest"]()).status
        if status != 1:
            raise WrongError(f"status {status}")
        return "SERVING"


def _reshape(message: Any, shape: list[int]) -> None:
    message.inputs[0].shape[:] = shape


def _outputs(response: Any) -> Mapping[str, np.ndarray]:
    outputs = {}
    for index, entry in enumerate(response.outputs):
        dtype = dtype_of(entry.datatype)
        if response.raw_output_contents:
            raw = response.raw_output_contents[index]
            count = int(np.prod(entry.shape, dtype=object))
            array = unpack_bytes(memoryview(raw), count) if dtype.kind == "O" else np.frombuffer(raw, dtype)
        else:
            values = getattr(entry.contents, FIELDS[entry.datatype])
            array = np.array([value.decode() for value in values] if dtype.kind == "O" else list(values), dtype)
        outputs[entry.name] = array.reshape(tuple(entry.shape))
    return outputs
