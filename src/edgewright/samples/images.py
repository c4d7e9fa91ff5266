"""Photos: decoding whatever a file holds, and preprocessing as `spec.ImageInput` says.

What is done with each kind of file, the way training pipelines do it:

- EXIF rotation is applied; ICC profiles are ignored.
- Alpha is dropped, not composited: the colours under it are taken as they are stored, also in palettes.
- 16-bit grey is scaled to 0..255 (65535 is 255) and resized in float; 16-bit colour keeps its high byte (Pillow).
- CMYK and YCCK become RGB by Pillow's simple formula (Adobe's inversion is undone); 1-bit becomes 0 and 255.
- Animations show their first frame. 32-bit integer and float pixels have no agreed scale and are refused.

Memory: a photo takes 4 bytes a pixel while it is decoded, 8 where its colours must be converted. Photos above
`DRAFT_PIXELS` that will be shrunk with antialiasing are shrunk first by a whole factor, to no less than four times what
the network needs (which moves the crop by an eighth of its pixels at most): baseline JPEGs already while they are
decoded, so that they take little. Above `MAX_PIXELS` a photo is refused.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from edgewright.framing import centre_box, letterbox_box
from edgewright.spec import ImageInput

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

#: File name endings taken for photos, lower case.
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".avif",
    )
)
#: Largest photo that is decoded: 536 megapixels, for example 23,000 by 23,000.
MAX_PIXELS = 2**29
#: Photos above this many pixels are shrunk in two steps where that is allowed.
DRAFT_PIXELS = 2**26
_HEADROOM = 4
#: Decoders allowed to run; others (PostScript, PDF, ...) never see a file, whatever its name.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
_ORIENTATION = 0x0112  # EXIF tag; values 2..8 are the transpositions below. Source: EXIF 2.3, 4.6.4.
_TRANSPOSE = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
              7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
_SIDEWAYS = 5  # from here on width and height change places
#: Pillow's limit and Python's warning filters are global; whoever changes them holds this.
_GLOBALS = threading.Lock()


class BrokenSampleError(Exception):
    """A sample that cannot be used, with the reason. Stays inside `samples`; users see E301 or E302."""


def decode(path: Path | BinaryIO, item: ImageInput | None = None) -> Image.Image:
    """The photo in a file, upright: mode L (grey), RGB, or F (16-bit grey scaled to 0..255).

    Args:
        path: The file, or a stream of its bytes; its content decides the format, not its name.
        item: What the photo is for, so that a huge one may be shrunk at once; None keeps it whole.

    Raises:
        BrokenSampleError: The file cannot be read, is cut short, is no photo, or is larger than `MAX_PIXELS`.
    """
    enough = None
    if item is not None and item.antialias and item.interpolation not in ("nearest", "darknet"):
        side = int(_HEADROOM * max(item.size) / item.crop_fraction) + 1
        enough = (side, side)
    return _load(path, enough, DRAFT_PIXELS)


def photo_size(path: Path | BinaryIO) -> tuple[int, int]:
    """Width and height of an upright photo in pixels, from the header of the file or stream.

    Raises:
        BrokenSampleError: It cannot be read.
    """
    try:
        with _unlimited():
            image = _open(path)
        with image:
            width, height = image.size
            # Pillow turns TIFFs itself, and only while it loads them: their orientation counts here as well
            return (height, width) if _orientation(image) >= _SIDEWAYS else (width, height)
    except Exception as problem:  # malformed files make Pillow raise nearly anything
        raise BrokenSampleError(_reason(path, problem)) from None


def check(path: Path) -> None:
    """Read a photo to its end, JPEGs at an eighth of their size, and keep nothing.

    Raises:
        BrokenSampleError: As `decode` would.
    """
    _load(path, (1, 1), 0)


def _load(path: Path | BinaryIO, enough: tuple[int, int] | None, draft_above: int) -> Image.Image:
    try:
        with _unlimited():
            image = _open(path)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BrokenSampleError(
                    f"has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million"
                )
            if enough and width * height > draft_above:
                image.draft(None, enough)  # JPEG decodes at 1/2, 1/4 or 1/8 of its size; others do nothing
            plain = _plain_mode(image)
            if enough and draft_above and plain.width * plain.height > draft_above:
                plain = plain.reduce(max(1, min(plain.width // enough[0], plain.height // enough[1])))
            return _upright(plain, _orientation(image))
    except BrokenSampleError:
        raise
    except MemoryError:
        raise BrokenSampleError("needs more memory than there is") from None
    except Exception as problem:  # malformed files make Pillow raise nearly anything
        raise BrokenSampleError(_reason(path, problem)) from None


def preprocess(photo: Image.Image, item: ImageInput) -> np.ndarray:
    """The network's input f32[1, C, H, W] (or `nhwc`) made from a decoded photo.

    `crop` cuts a box of whole pixels from the centre (rounded offsets go up and left) and then resizes it.
    """
    height, width = item.size
    if item.colour == "gray" and photo.mode == "RGB":
        photo = photo.convert("L")
    if item.resize == "crop":
        pixels = resize(
            _cut(photo, centre_box(photo.size, item)), item.size, item.interpolation, antialias=item.antialias
        )
    elif item.resize == "stretch":
        pixels = resize(photo, item.size, item.interpolation, antialias=item.antialias)
    else:
        pixels = _letterbox(photo, item)
    channels = 1 if item.colour == "gray" else 3
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], channels, axis=2)
    elif item.colour == "bgr":
        pixels = pixels[:, :, ::-1]
    values = (pixels - np.asarray(item.mean, np.float32)) / np.asarray(item.std, np.float32)
    assert values.shape == (height, width, channels)
    return np.ascontiguousarray((values if item.layout == "nhwc" else values.transpose(2, 0, 1))[None], np.float32)


def resize(
    photo: Image.Image,
    size: tuple[int, int],
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "darknet"],
    *,
    antialias: bool = True,
) -> np.ndarray:
    """The photo resized to `size` (height, width): f32[H, W] or f32[H, W, 3], 0..255.

    Whole numbers where the photo is 8-bit, as 8-bit resizing gives them. With `antialias` it is Pillow's resize;
    without, OpenCV's and torch's: samples at half-pixel centres, edges repeated, cubic with a = -0.75, nearest at
    floor(i * scale); `area` is a box filter in both. `darknet` is Darknet's own bilinear filter, never antialiased and
    never rounded: the corner pixels of the photo become those of the result.

    Source for `darknet`: resize_image in image.c of AlexeyAB/darknet.
    """
    from PIL import Image

    height, width = size
    if interpolation == "darknet":
        return _sampled(photo, height, width, interpolation)
    if antialias or interpolation == "area":
        filters = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
                   "bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX}  # fmt: skip
        pixels = np.array(photo.resize((width, height), filters[interpolation]), np.float32)
    else:
        pixels = _sampled(photo, height, width, interpolation)
        if photo.mode != "F":
            pixels = np.rint(pixels)
    np.clip(pixels, 0, 255, out=pixels)  # cubic filters overshoot
    return pixels


def _letterbox(photo: Image.Image, item: ImageInput) -> np.ndarray:
    left, top, right, bottom = letterbox_box(photo.size, item)
    pixels = resize(photo, (bottom - top, right - left), item.interpolation, antialias=item.antialias)
    canvas = np.full((*item.size, *pixels.shape[2:]), item.pad_value, np.float32)
    canvas[top:bottom, left:right] = pixels
    return canvas


def _sampled(photo: Image.Image, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resize without antialiasing; reads only the rows it needs, so that a huge photo is not copied whole."""
    rows, row_weights = _taps(photo.height, height, interpolation)
    columns, column_weights = _taps(photo.width, width, interpolation)
    needed, place = np.unique(rows, return_inverse=True)
    lines = _lines(photo, needed)
    across = np.zeros((len(needed), width, *lines.shape[2:]), np.float32)
    extra = (1,) * (lines.ndim - 2)
    for tap in range(columns.shape[1]):
        across += lines[:, columns[:, tap]] * column_weights[:, tap].reshape(1, -1, *extra)
    place = place.reshape(rows.shape)
    result = np.zeros((height, *across.shape[1:]), np.float32)
    for tap in range(rows.shape[1]):
        result += across[place[:, tap]] * row_weights[:, tap].reshape(-1, 1, *extra)
    return result


def _lines(photo: Image.Image, rows: np.ndarray) -> np.ndarray:
    if 2 * len(rows) >= photo.height:
        lines: np.ndarray = np.asarray(photo)[rows]
        return lines
    return np.concatenate([np.asarray(_cut(photo, (0, int(row), photo.width, int(row) + 1))) for row in rows])


def _taps(size_in: int, size_out: int, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
    """Source indices i64[size_out, k] and weights f32[size_out, k] along one axis.

    Source: Keys 1981 for the cubic kernel; a = -0.75 is OpenCV's and torch's choice.
    """
    if interpolation == "darknet":
        return _darknet_taps(size_in, size_out)
    scale = size_in / size_out
    if interpolation == "nearest":
        index = np.floor(np.arange(size_out) * scale)[:, None]
        return np.minimum(index, size_in - 1).astype(np.int64), np.ones((size_out, 1), np.float32)
    centre = (np.arange(size_out) + 0.5) * scale - 0.5
    low = np.floor(centre)
    t = centre - low
    if interpolation == "bilinear":
        offsets, weights = np.arange(2), np.stack([1 - t, t], axis=1)
    else:
        a = -0.75
        near = [(a + 2) * x**3 - (a + 3) * x**2 + 1 for x in (t, 1 - t)]
        far = [a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a for x in (1 + t, 2 - t)]
        offsets, weights = np.arange(-1, 3), np.stack([far[0], near[0], near[1], far[1]], axis=1)
    index = np.clip(low[:, None] + offsets, 0, size_in - 1)
    return index.astype(np.int64), weights.astype(np.float32)


def _darknet_taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """As `_taps`: the first and last samples of both sides coincide, and places are computed in float32 as in C."""
    scale = np.float32(size_in - 1) / np.float32(max(size_out - 1, 1))
    place = np.arange(size_out).astype(np.float32) * scale
    place[-1] = size_in - 1  # rounding must not reach beyond the end, and one single sample is the last
    low = place.astype(np.int64)
    t = place - low.astype(np.float32)
    index = np.minimum(np.stack([low, low + 1], axis=1), size_in - 1)
    return index, np.stack([1 - t, t], axis=1)


def _open(path: Path | BinaryIO) -> ImageFile:
    """The file as a lazy Pillow image: only its header is read."""
    from PIL import Image

    Image.init()
    return Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN])


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of a loaded image, 1 where there is none; Pillow turns TIFFs itself while loading them."""
    with _unlimited():
        try:
            value = image.getexif().get(_ORIENTATION, 1)
        except Exception:  # a damaged EXIF block says nothing about rotation; the pixels are fine
            return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    from PIL import Image

    name = _TRANSPOSE.get(orientation)
    return image.transpose(Image.Transpose[name]) if name else image


@contextmanager
def _unlimited() -> Iterator[None]:
    """Pillow without its own pixel limit (ours is checked before pixels are read) and without header warnings."""
    from PIL import Image

    with _GLOBALS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _cut(photo: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    if box == (0, 0, *photo.size):
        return photo
    if (box[2] - box[0]) * (box[3] - box[1]) < DRAFT_PIXELS:
        return photo.crop(box)
    with _unlimited():  # `crop` applies Pillow's limit again
        return photo.crop(box)


def _plain_mode(image: Image.Image) -> Image.Image:
    """The loaded image as L, RGB or F."""
    from PIL import Image

    image.load()
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    if mode in ("I", "F"):
        raise BrokenSampleError("holds 32-bit or signed pixels, which have no agreed scale")
    if mode in ("1", "LA", "La"):
        return image.convert("L")
    if mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # straight to RGB warns
    if mode in ("L", "RGB"):
        return image.copy() if image.readonly else image
    return image.convert("RGB")


def _reason(path: Path | BinaryIO, problem: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(problem, UnidentifiedImageError):
        empty = isinstance(path, Path) and path.is_file() and path.stat().st_size == 0
        return "is empty" if empty else "is not a photo that can be decoded"
    if isinstance(problem, OSError) and problem.strerror:
        return f"cannot be read: {problem.strerror}"
    return f"cannot be decoded: {problem or type(problem).__name__}"
