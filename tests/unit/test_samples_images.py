"""Photos: every kind of file decodes to the right pixels, preprocessing is what the Spec says, broken files say why."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewright.samples import images
from edgewright.samples.images import BrokenSampleError, centre_box, check, decode, preprocess, resize
from edgewright.spec import ImageInput

#: Pixels are 0..255: rounding moves them by half a level, JPEG and two-step shrinking by a few.
HALF_LEVEL, ONE_LEVEL, FEW_LEVELS, JPEG_LEVELS = 0.5, 1, 4, 8
RAW = {"mean": (0.0,), "std": (1.0,)}
FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX}  # fmt: skip


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def corners(width: int = 40, height: int = 20) -> Image.Image:
    """Red above left, green above right, blue below left, white below right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2, 0] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    pixels[height // 2 :, : width // 2, 2] = 255
    pixels[height // 2 :, width // 2 :] = 255
    return Image.fromarray(pixels)


# --- decoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    stored = corners().transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else corners()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(suffix, {})
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    photo = decode(tmp_path / f"a.{suffix}")
    assert photo.size == (40, 20)
    assert photo.getpixel((5, 5))[0] > 200 > 100 > photo.getpixel((5, 5))[1]
    assert photo.getpixel((35, 5))[1] > 200 > 100 > photo.getpixel((35, 5))[0]
    assert min(photo.getpixel((35, 15))) > 200


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_does_not_break_the_photo(tmp_path: Path, exif: bytes) -> None:
    corners().save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").size == (40, 20)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    photo = decode(tmp_path / f"a.{suffix}")
    assert photo.mode == "F"
    np.testing.assert_array_equal(np.asarray(photo), values / np.float32(257))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[[0, 256, 65535], [32768, 1, 128 * 256 + 255]]], np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, values, photometric="rgb")
    else:
        path.write_bytes(png_16(values))
    np.testing.assert_array_equal(np.asarray(decode(path)), values >> 8)


def png_16(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write. Source: PNG specification, sections 5 and 11."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(tmp_path: Path, dtype: Any) -> None:
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(BrokenSampleError, match="no agreed scale"):
        decode(tmp_path / "a.tif")


def test_cmyk_jpeg_has_the_right_colours(tmp_path: Path) -> None:
    corners(64, 64).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    photo = decode(tmp_path / "a.jpg")
    assert photo.mode == "RGB"
    distance = np.abs(np.asarray(photo, int)[::31, ::31] - np.asarray(corners(64, 64), int)[::31, ::31])
    assert distance.max() <= JPEG_LEVELS


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("LA", "L"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGB")],
)
def test_every_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str, expected: str) -> None:
    source = corners().convert(mode)
    source.save(tmp_path / "a.png")
    photo = decode(tmp_path / "a.png")
    assert photo.mode == expected
    np.testing.assert_array_equal(np.asarray(photo.convert("RGB")), np.asarray(source.convert("RGB")))


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (10, 200, 30, 0)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").getpixel((3, 3)) == (10, 200, 30)


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff"])
def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path, transparency: int | bytes) -> None:
    source = Image.new("P", (8, 8), 1)
    source.putpalette([1, 2, 3, 40, 50, 60, 7, 8, 9])
    source.save(tmp_path / "a.png", transparency=transparency)
    assert decode(tmp_path / "a.png").getpixel((3, 3)) == (40, 50, 60)


def test_an_animation_shows_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif").convert("RGB").getpixel((4, 4)) == (255, 0, 0)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert decode(tmp_path / "a.jpg").size == (40, 20)


# --- broken files ---------------------------------------------------------------------------------------------------


def jpeg(photo: Image.Image | None = None, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    (photo or noise(64, 64)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n", "is not a photo"),
        (jpeg()[:1500], "truncated"),
        (jpeg()[:2], "cannot be decoded|is not a photo"),
        (jpeg(kind="PNG")[:3000], "truncated|cannot be decoded"),
        (jpeg(kind="GIF")[:40], "cannot be decoded|truncated|is not a photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "is not a photo"),
    ],
)
def test_a_broken_file_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (check, decode):
        with pytest.raises(BrokenSampleError, match=reason):
            read(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BrokenSampleError, match="No such file"):
        decode(tmp_path / "a.jpg")


def test_a_bomb_is_refused_before_its_pixels_are_read(tmp_path: Path) -> None:
    """A 100,000 x 100,000 PNG that unpacks to 10 GB."""
    data = bytearray(png_16(np.zeros((1, 1, 3), np.uint16)))
    import struct
    import zlib

    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BrokenSampleError, match=r"100000 x 100000 pixels, more than the limit of 536 million"):
        decode(tmp_path / "a.png")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    content = bytearray(jpeg(noise(24, 18), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 600)))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.img"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert decode(path).mode in ("L", "RGB", "F")
    except BrokenSampleError as problem:
        assert str(problem)


def test_pillows_own_limits_are_left_as_they_were(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    corners().save(tmp_path / "a.png")
    decode(tmp_path / "a.png")
    assert before == Image.MAX_IMAGE_PIXELS


# --- huge photos ----------------------------------------------------------------------------------------------------

_MEASURE = """
import resource, sys
from pathlib import Path
from edgewright.samples import images
from edgewright.spec import ImageInput
import PIL.Image
item = ImageInput(size=(224, 224), mean=(0.0,), std=(1.0,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images.check(Path(sys.argv[1]))
array = images.preprocess(images.decode(Path(sys.argv[1]), item), item)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, *array[0, 0, 10, :2], array[0, 0, 200, 100], array[0, 0, 223, 223])
"""


@pytest.mark.parametrize(("suffix", "most_mb"), [("jpg", 100), ("png", 450)])
def test_20000_pixels_come_out_right_in_bounded_memory(tmp_path: Path, suffix: str, most_mb: int) -> None:
    """A vertical grey ramp of 20,000 x 20,000, 400 MB as bytes; the crop keeps 17,500 rows from row 1250 on."""
    Image.linear_gradient("L").resize((20_000, 20_000), Image.Resampling.NEAREST).save(tmp_path / f"a.{suffix}")
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / f"a.{suffix}")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    expected = [(1250 + (row + 0.5) * 17_500 / 224) * 256 / 20_000 - 0.5 for row in (10, 10, 200, 223)]
    np.testing.assert_allclose([float(value) for value in output[1:]], expected, atol=ONE_LEVEL)
    assert int(output[0]) / 1024 < most_mb


@pytest.mark.parametrize("resize_rule", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_shrinking_in_two_steps_changes_next_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize_rule: Any, suffix: str
) -> None:
    photo = noise(40, 30).resize((1600, 1200), Image.Resampling.BICUBIC)
    photo.save(tmp_path / f"a.{suffix}")
    item = ImageInput(size=(64, 64), resize=resize_rule, **RAW)
    whole = preprocess(decode(tmp_path / f"a.{suffix}", item), item)
    monkeypatch.setattr(images, "DRAFT_PIXELS", 100_000)
    small = decode(tmp_path / f"a.{suffix}", item)
    assert small.width < 1600
    assert np.abs(preprocess(small, item) - whole).mean() < FEW_LEVELS
    coarse = ImageInput(size=(64, 64), resize=resize_rule, interpolation="nearest", **RAW)
    assert decode(tmp_path / f"a.{suffix}", coarse).size == (1600, 1200)


# --- preprocessing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(31, 17), (1, 1), (100, 130)])
def test_resize_with_antialias_is_pillows(interpolation: Any, size: tuple[int, int]) -> None:
    photo = noise(53, 47)
    expected = np.asarray(photo.resize(size[::-1], FILTERS[interpolation]), np.float32)
    np.testing.assert_array_equal(resize(photo, size, interpolation), expected)


def independent(
    pixels: np.ndarray, height: int, width: int, kernel: Callable[[float], float], reach: int
) -> np.ndarray:
    """Each output pixel as a double sum over its neighbours, half-pixel centres, edges repeated."""
    result = np.zeros((height, width, pixels.shape[2]))
    for y in range(height):
        for x in range(width):
            v = (y + 0.5) * pixels.shape[0] / height - 0.5
            u = (x + 0.5) * pixels.shape[1] / width - 0.5
            for j in range(int(np.floor(v)) - reach + 1, int(np.floor(v)) + reach + 1):
                for i in range(int(np.floor(u)) - reach + 1, int(np.floor(u)) + reach + 1):
                    row, column = min(max(j, 0), pixels.shape[0] - 1), min(max(i, 0), pixels.shape[1] - 1)
                    result[y, x] += kernel(abs(v - j)) * kernel(abs(u - i)) * pixels[row, column]
    return result


def linear(x: float) -> float:
    return max(0.0, 1 - x)


def cubic(x: float, a: float = -0.75) -> float:
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@settings(max_examples=40, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 24)] * 2, *[st.integers(1, 12)] * 2),
    seed=st.integers(0, 99),
    kernel=st.sampled_from(["bilinear", "bicubic"]),
)
def test_resize_without_antialias_is_the_double_sum(
    tolerance: dict[str, dict[str, float]], sides: tuple[int, int, int, int], seed: int, kernel: Any
) -> None:
    width, height, out_height, out_width = sides
    photo = noise(width, height, seed)
    function, reach = (linear, 1) if kernel == "bilinear" else (cubic, 2)
    expected = independent(np.asarray(photo, np.float64), out_height, out_width, function, reach)
    got = resize(photo, (out_height, out_width), kernel, antialias=False)
    limit = HALF_LEVEL + tolerance["float32"]["rtol"] * 255
    assert np.abs(got - np.clip(expected, 0, 255)).max() <= limit
    assert (got == np.rint(got)).all()


def test_nearest_without_antialias_takes_the_upper_left_pixel() -> None:
    photo = noise(10, 10)
    got = resize(photo, (4, 4), "nearest", antialias=False)
    np.testing.assert_array_equal(got, np.asarray(photo)[np.ix_([0, 2, 5, 7], [0, 2, 5, 7])])


def test_resize_of_16_bit_grey_is_not_rounded() -> None:
    photo = Image.fromarray(np.array([[0.0, 0.5], [1.0, 255.0]], np.float32))
    assert resize(photo, (2, 2), "bilinear")[0, 1] == np.float32(0.5)
    assert resize(photo, (1, 1), "bilinear", antialias=False)[0, 0] == np.float32(256.5 / 4)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 60), height=st.integers(1, 60), size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    rule=st.sampled_from(["crop", "stretch", "letterbox"]), colour=st.sampled_from(["rgb", "bgr", "gray"]),
    layout=st.sampled_from(["nchw", "nhwc"]), fraction=st.floats(0.05, 1), interpolation=st.sampled_from(list(FILTERS)),
)  # fmt: skip
def test_preprocess_is_the_straightforward_computation(
    tolerance: dict[str, dict[str, float]], width: int, height: int, size: tuple[int, int], rule: Any, colour: Any,
    layout: Any, fraction: float, interpolation: Any,
) -> None:  # fmt: skip
    channels = 1 if colour == "gray" else 3
    mean, std = tuple(range(10, 10 + channels)), tuple(range(50, 50 + channels))
    item = ImageInput(size=size, resize=rule, crop_fraction=fraction, interpolation=interpolation, colour=colour,
                      mean=mean, std=std, layout=layout)  # fmt: skip
    photo = noise(width, height)
    plain = photo.convert("L") if colour == "gray" else photo
    if rule == "crop":
        plain = plain.crop(centre_box(plain.size, item))
    inner = size
    if rule == "letterbox":
        scale = min(size[0] / height, size[1] / width)
        inner = tuple(min(most, max(1, round(side * scale))) for side, most in zip((height, width), size, strict=True))
    pixels = np.asarray(plain.resize(inner[::-1], FILTERS[interpolation]), np.float64).reshape(*inner, channels)
    canvas = np.full((*size, channels), item.pad_value)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = pixels
    expected = (canvas[..., ::-1] if colour == "bgr" else canvas) - np.array(mean)
    expected = expected / np.array(std)
    got = preprocess(photo, item)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.shape == ((1, *size, channels) if layout == "nhwc" else (1, channels, *size))
    got = got[0] if layout == "nhwc" else got[0].transpose(1, 2, 0)
    limits = tolerance["float32"]
    np.testing.assert_allclose(got, expected, rtol=limits["rtol"], atol=limits["atol"])


@pytest.mark.parametrize(
    ("photo", "size", "fraction", "box"),
    [
        ((256, 256), (224, 224), 0.875, (16, 16, 240, 240)),
        ((512, 256), (224, 224), 0.875, (144, 16, 368, 240)),
        ((256, 512), (224, 224), 1.0, (0, 128, 256, 384)),
        ((100, 100), (50, 100), 1.0, (0, 25, 100, 75)),
        ((1, 1), (224, 224), 0.1, (0, 0, 1, 1)),
        ((3, 1000), (10, 10), 0.5, (0, 499, 2, 501)),
    ],
)
def test_centre_box(
    photo: tuple[int, int], size: tuple[int, int], fraction: float, box: tuple[int, int, int, int]
) -> None:
    assert centre_box(photo, ImageInput(size=size, crop_fraction=fraction)) == box


@given(st.tuples(*[st.integers(1, 5000)] * 2), st.tuples(*[st.integers(1, 600)] * 2), st.floats(0.01, 1))
def test_centre_box_lies_inside_the_photo(photo: tuple[int, int], size: tuple[int, int], fraction: float) -> None:
    left, top, right, bottom = centre_box(photo, ImageInput(size=size, crop_fraction=fraction))
    assert 0 <= left < right <= photo[0]
    assert 0 <= top < bottom <= photo[1]


def test_a_grey_photo_feeds_colour_channels_alike() -> None:
    array = preprocess(noise(32, 32).convert("L"), ImageInput(size=(16, 16), colour="bgr", **RAW))
    np.testing.assert_array_equal(array[:, 0], array[:, 1])
    np.testing.assert_array_equal(array[:, 0], array[:, 2])


def test_many_row_reads_equal_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = noise(40, 300)
    few = resize(photo, (5, 7), "bilinear", antialias=False)
    monkeypatch.setattr(images, "_lines", lambda photo, rows: np.asarray(photo)[rows])
    np.testing.assert_array_equal(few, resize(photo, (5, 7), "bilinear", antialias=False))
