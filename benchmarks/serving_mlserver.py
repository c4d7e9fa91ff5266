"""MLServer with the networks of `serving.py`: python serving_mlserver.py FOLDER PORT"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import mlserver
import numpy as np
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor
from serving_bare import sessions


class Network(mlserver.MLModel):
    async def load(self) -> bool:
        self.session = sessions(Path(self.settings.parameters.uri))[self.name]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (given,) = payload.inputs
        array = NumpyCodec.decode_input(given).astype(np.float32)
        output = self.session.get_outputs()[0].name
        (result,) = self.session.run([output], {given.name: array})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(output, result)])


def _described(info: object) -> MetadataTensor:
    shape = [size if isinstance(size, int) else -1 for size in info.shape]
    return MetadataTensor(name=info.name, datatype="FP32", shape=shape)


async def main(folder: str, port: int) -> None:
    settings = mlserver.Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0, debug=False
    )
    known = sessions(Path(folder))
    models = [
        mlserver.ModelSettings(
            name=name,
            implementation="serving_mlserver.Network",
            parameters={"uri": folder},
            inputs=[_described(info) for info in known[name].get_inputs()],
            outputs=[_described(info) for info in known[name].get_outputs()],
        )
        for name in ("identity", "conv")
    ]
    await mlserver.MLServer(settings).start(models)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
