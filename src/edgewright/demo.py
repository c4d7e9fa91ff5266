"""demo: EfficientNet-Lite0 from its package, deployed over the installed runtimes with photos that scikit-image ships.

A demonstration, not a proof: its bounds count the crops of three photos as if they were as many photos. In a deployment
of your own the column `group` of labels.csv says what comes from one source, and bounds count sources. Here the column
`role` keeps at least the crops that judge apart from those that files are made with: they come from other photos.

    outcome = demo("runs/demo")     # photos in runs/demo-photos, report in runs/demo/report.html
"""

from __future__ import annotations

import csv
import importlib.util
import io
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError
from edgewright.files import write_whole
from edgewright.progress import SILENT, Progress

if TYPE_CHECKING:
    from PIL import Image

    from edgewright.records import DeployOutcome

DISCLAIMER = "a demonstration, not a proof: crops of three photos judge as if they were photos"
NETWORK = "efficientnet-lite0"

#: What is tried: the recipes that say most in the least time.
RECIPES = ("original", "float", "fp16", "int8")
#: Crops of a cat's face are near ties between its breeds; one in twenty may go the other way. Settled, like the roles below,
#: after int8 had been seen to fail 98 % on other roles: so the demo's verdict is no evidence of how good int8 is.
MIN_AGREEMENT = 0.95

#: Photos inside the scikit-image wheel, all CC0 or public domain, with the role of their crops.
#: Textures, drawings and microscopy are left out: on them no answer of the network means anything. Those that calibrate
#: show what ImageNet has no class for: the float network itself gives their crops four to nine classes.
PHOTOS = {
    "astronaut": "calibrate", "coins": "calibrate", "rocket": "calibrate",
    "camera": "select",
    "chelsea": "judge", "coffee": "judge", "motorcycle_left": "judge",
}  # fmt: skip
#: Crops of each photo: 3 judged photos give 192 samples, and 189 that agree are what a bound of 95 % takes.
CROPS = 64
#: Smallest crop, as a part of the photo's shorter side.
_SMALLEST = 0.55
_QUALITY = 92  # of the JPEG files


def demo(out: str | Path, *, threads: int = 1, progress: Progress = SILENT) -> DeployOutcome:
    """What `deploy` finds for EfficientNet-Lite0; its photos are written to `OUT-photos` unless they are there.

    Prints nothing. Say `DISCLAIMER` wherever the outcome is shown.

    Raises:
        EdgewrightError: E102 without the extra `demo`, E105 when a folder cannot be written, and what `deploy` raises.
    """
    from edgewright.deploy import deploy
    from edgewright.deploy.run import read_state
    from edgewright.load import load
    from edgewright.samples import Samples

    out = Path(out)
    model = load(f"zoo:{NETWORK}")
    read_state(out, model)  # refuses what `deploy` would refuse, before any photo is written
    folder = photos(photo_folder(out), progress=progress)
    samples = Samples.open(folder, model, progress=progress)
    words = ["edgewright", "deploy", f"zoo:{NETWORK}", "--samples", str(folder)]
    tried = [word for recipe in RECIPES for word in ("--recipe", recipe)]
    command = shlex.join([*words, *tried, "--min-agreement", str(MIN_AGREEMENT), "--out", str(out)])
    return deploy(
        model, samples, recipes=RECIPES, min_agreement=MIN_AGREEMENT, threads=threads, out=out, command=command,
        progress=progress,
    )  # fmt: skip


def photo_folder(out: str | Path) -> Path:
    """Folder of the demo's photos, beside the run's folder `out`."""
    out = Path(out)
    return out.with_name(f"{out.name}-photos")


def photos(folder: str | Path, *, progress: Progress = SILENT) -> Path:
    """The folder, filled with `CROPS` square crops of each of `PHOTOS` and a labels.csv that gives them its role.

    The crops are the same every time. A folder that is complete is left as it is.

    Raises:
        EdgewrightError: E102 without scikit-image, E105 when `folder` holds something else or cannot be written.
    """
    folder = Path(folder)
    files = _packaged_photos()
    rows = [(f"{name}-{number:02d}.jpg", role) for name, role in PHOTOS.items() for number in range(CROPS)]
    try:
        if _complete(folder, rows):
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        for done, name in enumerate(PHOTOS):
            progress.update("write demo photos", done, len(PHOTOS))
            for number, crop in enumerate(_crops(files[name])):
                crop.save(folder / f"{name}-{number:02d}.jpg", quality=_QUALITY)
        progress.update("write demo photos", len(PHOTOS), len(PHOTOS))
        write_whole(folder / "labels.csv", _table(rows))  # last: its presence says that the crops are there
    except OSError as problem:
        raise EdgewrightError(
            "E105", f"demo photos `{folder}` cannot be written: {problem.strerror or problem}"
        ) from None
    return folder


def _packaged_photos() -> dict[str, Path]:
    package = importlib.util.find_spec("skimage")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise EdgewrightError(
            "E102",
            "the demo needs the package `scikit-image` for its photos, which is not installed",
            hint='pip install "edgewright[demo]"',
        )
    found = {name: next(Path(folders[0], "data").glob(f"{name}.*"), None) for name in PHOTOS}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        raise EdgewrightError(
            "E102",
            f"the installed scikit-image lacks the demo's photos {', '.join(absent)}",
            hint='pip install --upgrade "edgewright[demo]"',
        )
    return {name: path for name, path in found.items() if path is not None}


def _complete(folder: Path, rows: list[tuple[str, str]]) -> bool:
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise EdgewrightError(
            "E105", f"`{folder}` is a file, but the demo's photos go there", hint="choose another --out"
        )
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    strangers = names - {name for name, _ in rows} - {"labels.csv"}
    if strangers:
        raise EdgewrightError(
            "E105",
            f"folder `{folder}` holds `{min(strangers)}`, but the demo's photos go there",
            hint="choose another --out",
        )
    return names == {name for name, _ in rows} | {"labels.csv"}


def _table(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "role"))
    writer.writerows(rows)
    return text.getvalue()


def _crops(path: Path) -> Iterator[Image.Image]:
    """Square crops of a photo, every second one mirrored, spread evenly over sizes and places.

    Source: the additive recurrence R3 (Roberts 2018): multiples of powers of 1/g modulo 1, g the root of g^4 = g + 1.
    """
    from PIL import Image

    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    g = 1.2207440846057596
    for number in range(CROPS):
        size, left, top = ((number + 1) / g**power % 1 for power in (1, 2, 3))
        side = round(min(photo.size) * (_SMALLEST + (1 - _SMALLEST) * size))
        x, y = round((photo.width - side) * left), round((photo.height - side) * top)
        crop = photo.crop((x, y, x + side, y + side))
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else crop
