"""Damaged requests against a real server: answers of 500 and more, and answers that never came.

    python benchmarks/serving_fuzz.py [--cases 1000000] [--seed 0] [--only http] [--patience 2] [--json FILE]

Half of the cases go over HTTP through a socket of their own, half over gRPC, or all over one. Each starts from a
good request (JSON, binary tensors, a photo, loading and unloading, repository and metadata calls, a stream of up to four
messages), of which a few places are replaced: by nothing, digits, brackets, zero bytes, chance, another part of itself, or
sizes that are one off or huge; of a stream each message may be. Who asks for loading and unloading has the token. Over HTTP a
case may also be cut into pieces at any byte, hold several requests one behind the other, have its body in chunks whose framing
is damaged, or end early: the client closes, or resets, before the answer. A case is bad where the server answers 5xx (gRPC:
INTERNAL or UNKNOWN) or not within 20 seconds; 503 and UNAVAILABLE are bad as well, and so is a connection that is closed
without an answer, unless the request was cut short: then nobody could answer it. Of several requests the first is sure to be
answered; a client that then closes its side may miss the others' answers. The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import select
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from serving import IDENTITY, _answers, free_port, ours
from serving_load import grpc_request, http_request, infer_request

import edgewright as ew
from edgewright.serve.grpc import schema

_WAIT_S = 20.0
_KEPT = 20  # bad cases that are printed
_STREAM = "ModelStreamInfer"
_TOKEN = "correct-horse-battery-staple"
_WORDS = (b"", b"\r\n", b"-1", b"0", b"\xff" * 8, b"4294967296", b"18446744073709551616", b'"', b"{", b"null", b"NaN")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The data with a few places replaced."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place, size = chance.randrange(len(changed) + 1), chance.choice([0, 1, 1, 4, 64])
        words = (*_WORDS, b"9" * size, b"[" * size, b"\0" * size, chance.randbytes(size), bytes(changed[:size]))
        changed[place : place + size] = chance.choice(words)
    if chance.random() < 0.1:
        del changed[chance.randrange(len(changed) + 1) :]
    return bytes(changed)


def http_seeds() -> list[bytes]:
    array = np.zeros((1, 64), np.float32)
    return [
        infer_request("/v2/models/identity/infer", "x", array),
        infer_request("/v2/models/identity/infer", "x", array, binary=False),
        infer_request("/v2/models/identity/versions/1/infer", "x", array, priority=1),
        http_request("/v2/models/identity/predict", b"\xff\xd8\xff\xe0" + bytes(64)),
        infer_request("/v2/models/identity/infer", "x", array).replace(
            b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n", 1
        ),
        http_request("/v2/models/nobody/infer", bytes(4096)),
        http_request("/v2/repository/index", b'{"ready": true}'),
        *[
            http_request(
                f"/v2/repository/models/other/{verb}", b"{}", b"authorization: Bearer %s\r\n" % _TOKEN.encode()
            )
            for verb in ("load", "unload")
        ],
        b"GET /v2/models/identity HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n",
    ]


def chunked(request: bytes, chance: random.Random) -> bytes:
    """The same request with its body in chunks; now and then something between them is wrong."""
    head, _, body = request.partition(b"\r\n\r\n")
    head = re.sub(rb"\r\ncontent-length:[^\r]*", b"", head) + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [b"%x%b\r\n" % (0, chance.choice([b"", b"", b";a=b"])), chance.choice([b"", b"", b"x-a: b\r\n"]), b"\r\n"]
    while body:
        size = chance.choice([1, 7, 64, 4096])
        part, body = body[-size:], body[:-size]
        parts[:0] = [b"%x%b" % (len(part), chance.choice([b"", b"", b";a", b';a="b"'])), b"\r\n", part, b"\r\n"]
    if chance.random() < 0.5:
        parts[chance.randrange(len(parts))] = chance.choice(
            [*_WORDS, b"\n", b"\r", b"\r\r\n", b"1", b"0\r\n\r\n", b" 1\r\n"]
        )
    return head + b"".join(parts)


def sent(seeds: list[bytes], chance: random.Random) -> tuple[list[bytes], bool]:
    """What a case sends, in pieces, and whether the client then goes without waiting."""
    requests = []
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        request = chance.choice(seeds)
        if chance.random() < 0.25 and request.startswith(b"POST"):
            request = chunked(request, chance)
        requests.append(request if chance.random() < 0.3 else damaged(request, chance))
    data = b"".join(requests)
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 0, 1, 3, 20])))
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    return [piece for piece in pieces if piece], chance.random() < 0.05


def grpc_seeds() -> list[tuple[str, bytes]]:
    """Names of calls, and a good message for each."""
    protocol = schema.load("inference")
    raw = grpc_request("identity", "x", np.zeros((1, 64), np.float32))
    values = protocol.messages["ModelInferRequest"](model_name="identity", id="a")
    values.inputs.add(name="x", datatype="FP32", shape=[1, 64]).contents.fp32_contents.extend([0.0] * 64)
    values.parameters["priority"].int64_param = 1
    seeds = [(call, data) for call in ("ModelInfer", _STREAM) for data in (raw, values.SerializeToString())]
    for call in ("ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady"):
        seeds.append((call, protocol.methods[call].request(name="identity", version="1").SerializeToString()))
    for call in ("RepositoryModelLoad", "RepositoryModelUnload"):
        request = protocol.methods[call].request(model_name="other")
        request.parameters["unload_dependents"].bool_param = True
        seeds.append((call, request.SerializeToString()))
    seeds.append(("RepositoryIndex", protocol.methods["RepositoryIndex"].request(ready=True).SerializeToString()))
    return seeds


def is_cut_short(data: bytes) -> bool:
    """Whether the server must wait for more: the head has no end, or the body is shorter than was announced."""
    head, end, body = data.partition(b"\r\n\r\n")
    announced = re.search(rb"\ncontent-length:[ \t]*([0-9]{1,19})[ \t]*(\r|$)", head, re.IGNORECASE)
    return not end or (announced is not None and int(announced[1]) > len(body))


def answers_of(connection: socket.socket, cut: bool, patience_s: float) -> tuple[bytes, bool]:
    """What the server answers until it closes, and whether it lacked something of the request, as is known before if `cut`.

    A client that closes its side early has gone, for the server: only one that has sent too little does so before an answer.
    """
    answer, closed = b"", False
    while True:
        if not closed and (is_answer(answer) or cut or not select.select([connection], [], [], patience_s)[0]):
            cut = cut or not is_answer(answer)
            connection.shutdown(socket.SHUT_WR)
            closed = True
        part = connection.recv(4096)
        if not part:
            return answer, cut
        answer += part


def is_answer(data: bytes) -> bool:
    """Whether there is more in it than leave to go on."""
    return data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") != b""


def over_http(port: int, patience_s: float) -> Callable[[random.Random], tuple[str, bytes]]:
    seeds = http_seeds()

    def ask(chance: random.Random) -> tuple[str, bytes]:
        pieces, leaves = sent(seeds, chance)
        data, resets = b"".join(pieces), chance.random() < 0.5
        cut = is_cut_short(data)
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    connection.sendall(piece)
                if leaves:
                    if resets:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return "left", data
                answer, cut = answers_of(connection, cut, patience_s)
        except TimeoutError:
            return "hang", data
        except OSError:
            answer = b""
        if is_answer(answer):
            return max(re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer), default=b"599").decode(), data
        return "cut short" if cut else "closed", data

    return ask


def over_grpc(channel: Any) -> Callable[[random.Random], tuple[str, bytes]]:
    seeds = grpc_seeds()
    prefix = "/inference.GRPCInferenceService/"
    calls = {call: channel.unary_unary(prefix + call) for call, _ in seeds}
    stream = channel.stream_stream(prefix + _STREAM)
    settings = {"timeout": _WAIT_S, "metadata": (("authorization", f"Bearer {_TOKEN}"),)}

    def ask(chance: random.Random) -> tuple[str, bytes]:
        call, good = chance.choice(seeds)
        sent = [damaged(good, chance) for _ in range(chance.randint(1, 4) if call == _STREAM else 1)]
        try:
            if call == _STREAM:
                answers = len(list(stream(iter(sent), **settings)))
                return "OK" if answers == len(sent) else "closed", b"|".join(sent)
            calls[call](sent[0], **settings)
        except grpc.RpcError as problem:
            return str(problem.code().name), b"|".join(sent)
        return "OK", sent[0]

    return ask


def is_bad(outcome: str) -> bool:
    return outcome.startswith("5") or outcome in (
        "hang",
        "closed",
        "INTERNAL",
        "UNKNOWN",
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
    )


def fuzz(cases: int, seed: int, only: str = "http,grpc", patience_s: float = 2.0) -> dict[str, Any]:
    import onnx_ir as ir

    chance = random.Random(seed)
    found: dict[str, Counter[str]] = {"http": Counter(), "grpc": Counter()}
    kept: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgewright-fuzz-") as name:
        token = Path(name) / "token"
        token.write_text(_TOKEN)
        for model in ("identity", "other"):
            ew.convert(ew.Model(ir.from_onnx_text(IDENTITY)), "onnxruntime", Path(name) / "models" / model)
        number = free_port()
        options = ("--max-body", "1", "--admin-token", str(token), "--grpc", str(number))
        with ours(Path(name) / "models", *options) as server:
            with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
                ways = {"http": over_http(server.port, patience_s), "grpc": over_grpc(channel)}
                for _ in range(cases):
                    way = chance.choice(only.split(","))
                    outcome, data = ways[way](chance)
                    found[way][outcome] += 1
                    if is_bad(outcome):
                        kept.append(f"{way} {outcome} {data!r}"[:2000])
            alive = _answers(server.port, "/v2/health/ready")
            memory = round(server.memory_mib)
    outcomes = {way: dict(sorted(counts.items())) for way, counts in found.items()}
    return {
        "cases": cases,
        "seed": seed,
        "outcomes": outcomes,
        "bad": len(kept),
        "kept": kept[:_KEPT],
        "alive": alive,
        "memory_mib": memory,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="http,grpc")
    parser.add_argument(
        "--patience",
        type=float,
        default=2.0,
        help="Seconds until a request without an answer is taken to lack something.",
    )
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    found = fuzz(options.cases, options.seed, options.only, options.patience)
    print(json.dumps(found, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    return 1 if found["bad"] or not found["alive"] else 0


if __name__ == "__main__":
    sys.exit(main())
