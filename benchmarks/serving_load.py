"""Load for `serving.py`: requests over keep-alive connections from one thread, closed loop or at a fixed rate."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Load:
    """What came back: seconds by status, and how long it was measured."""

    seconds: float = 0.0
    latencies_s: dict[int, list[float]] = field(default_factory=dict)

    def count(self, status: int) -> int:
        return len(self.latencies_s.get(status, ()))

    def rate(self, status: int = 200) -> float:
        return self.count(status) / self.seconds

    def quantile_ms(self, share: float, status: int = 200) -> float:
        found = self.latencies_s.get(status)
        return float(np.quantile(found, share)) * 1000 if found else float("nan")


def infer_request(path: str, name: str, array: np.ndarray, *, binary: bool = True, **parameters: object) -> bytes:
    """A request of the Open Inference Protocol as bytes on the wire."""
    entry = {"name": name, "shape": list(array.shape), "datatype": "FP32"}
    if binary:
        entry["parameters"] = {"binary_data_size": array.nbytes}
        parameters["binary_data_output"] = True
    else:
        entry["data"] = array.reshape(-1).tolist()
    head = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    extra = b"inference-header-content-length: %d\r\n" % len(head) if binary else b"content-type: application/json\r\n"
    return http_request(path, head + (array.tobytes() if binary else b""), extra)


def http_request(path: str, body: bytes, extra: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\n%scontent-length: %d\r\n\r\n" % (path.encode(), extra, len(body))
    return head + body


class _Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self._held = b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """The status of a complete answer; None while some of it is missing."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._held += part
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._held[:end].lower()
        place = head.index(b"\r\ncontent-length:")
        length = int(head[place + 17 :].split(b"\r\n", 1)[0])
        if len(self._held) < end + 4 + length:
            return None
        self._held = b""
        return int(head[9:12])


def closed_loop(port: int, request: bytes, *, clients: int, seconds: float, warm_up_s: float = 0.3) -> Load:
    """Each of `clients` sends its next request when it has the answer to the last."""
    selector = selectors.DefaultSelector()
    connections = [_Connection(port) for _ in range(clients)]
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(request)
    load, begun, counting = Load(), time.perf_counter(), False
    while True:
        now = time.perf_counter()
        if not counting and now - begun >= warm_up_s:
            load, begun, counting = Load(), now, True
        if counting and now - begun >= seconds:
            break
        for key, _ in selector.select(1.0):
            connection = key.data
            status = connection.receive()
            if status is None:
                continue
            load.latencies_s.setdefault(status, []).append(time.perf_counter() - connection.sent_at)
            connection.send(request)
    load.seconds = time.perf_counter() - begun
    for connection in connections:
        connection.socket.close()
    return load


def open_loop(port: int, request: bytes, *, rate: float, clients: int, seconds: float) -> Load:
    """Requests at a fixed rate; those for which no connection is free are left out."""
    selector = selectors.DefaultSelector()
    free = deque(_Connection(port) for _ in range(clients))  # in turn: servers close connections that are never used
    everything = list(free)
    for connection in free:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    load, begun, sent = Load(), time.perf_counter(), 0
    while (now := time.perf_counter()) - begun < seconds:
        due = int((now - begun) * rate)
        while sent < due and free:
            free.popleft().send(request)
            sent += 1
        sent = due
        for key, _ in selector.select(0.0005):
            status = key.data.receive()
            if status is not None:
                load.latencies_s.setdefault(status, []).append(time.perf_counter() - key.data.sent_at)
                free.append(key.data)
    load.seconds = time.perf_counter() - begun
    for connection in everything:
        connection.socket.close()
    return load


def grpc_loop(port: int, request: bytes, *, clients: int, seconds: float, warm_up_s: float = 0.3) -> Load:
    """As `closed_loop` for ModelInfer over gRPC; `request` is the message's bytes. Failed calls count as status 500."""
    import queue

    import grpc

    done: queue.SimpleQueue[tuple[float, int]] = queue.SimpleQueue()
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def send() -> None:
            sent_at = time.perf_counter()
            status = {grpc.StatusCode.OK: 200}
            call.future(request, timeout=60).add_done_callback(
                lambda answer: done.put((time.perf_counter() - sent_at, status.get(answer.code(), 500)))
            )

        for _ in range(clients):
            send()
        load, begun, counting = Load(), time.perf_counter(), False
        while not counting or time.perf_counter() - begun < seconds:
            took, status = done.get(timeout=60)
            if not counting and time.perf_counter() - begun >= warm_up_s:
                load, begun, counting = Load(), time.perf_counter(), True
            elif counting:
                load.latencies_s.setdefault(status, []).append(took)
            send()
        load.seconds = time.perf_counter() - begun
        for _ in range(clients):
            done.get(timeout=60)
    return load


def grpc_request(model: str, name: str, array: np.ndarray) -> bytes:
    """A ModelInferRequest with raw contents, as bytes."""
    from edgewright.serve.grpc import schema

    message = schema.load("inference").messages["ModelInferRequest"](model_name=model)
    message.inputs.add(name=name, datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())
