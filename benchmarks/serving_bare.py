"""A bare handler on the same HTTP parser and event loop as ours, for `serving.py`: python serving_bare.py FOLDER PORT

One binary request to arrays, ONNX Runtime, arrays to an answer. No checks, no limits, no queue, no other paths: what is left
when nothing more can be taken away. It runs the network on the thread of the event loop, which is the fastest, and deaf
while it runs.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np


def sessions(folder: Path) -> dict[str, object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {path.parent.name: onnxruntime.InferenceSession(path, options) for path in folder.glob("*/model.onnx")}


class Bare(asyncio.Protocol):
    """One connection; what the parser finds comes to its methods."""

    def __init__(self, models: dict[str, object], names: dict[str, tuple[str, str]]) -> None:
        import httptools
        import msgspec

        self.models, self.names, self.json = models, names, msgspec.json
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers, self.parts = {}, []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        if self.parser.get_method() != b"POST":
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        length = int(self.headers[b"inference-header-content-length"])
        request = self.json.decode(body[:length])
        model = self.url.decode().split("/")[3]
        given, wanted = self.names[model]
        array = np.frombuffer(body, np.float32, offset=length).reshape(request["inputs"][0]["shape"])
        raw = self.models[model].run([wanted], {given: array})[0]
        content = raw.tobytes()
        entry = {
            "name": wanted,
            "shape": raw.shape,
            "datatype": "FP32",
            "parameters": {"binary_data_size": len(content)},
        }
        top = self.json.encode({"model_name": model, "model_version": "1", "outputs": [entry]})
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
            b"content-length: %d\r\n\r\n%b%b" % (len(top), len(top) + len(content), top, content)
        )


async def serve(folder: Path, port: int) -> None:
    models = sessions(folder)
    names = {name: (session.get_inputs()[0].name, session.get_outputs()[0].name) for name, session in models.items()}
    server = await asyncio.get_running_loop().create_server(lambda: Bare(models, names), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
