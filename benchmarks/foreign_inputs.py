"""Inputs for `foreign_networks.py`: real photos, plates and speech; text and captchas are rendered, which is said beside them.

Everything is drawn from seeds, so that two runs on machines with the same fonts judge the same samples. Needs Pillow;
speech needs `soundfile` (a benchmark's dependency, not the package's).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

#: Where fonts are looked for; Pillow's own is always among them.
FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts")
#: Mixed-up characters are left out of captchas, as captchas do.
CAPTCHA_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabdefghijkmnpqrstuvwxyz23456789"
WORDS = (
    "water", "market", "street", "number", "public", "energy", "garden", "window", "silver", "letter", "coffee",
    "winter", "record", "island", "travel", "summer", "bridge", "north", "river", "school", "system", "report",
    "office", "camera", "engine", "ticket", "airport", "station", "museum", "hospital", "exit", "open", "closed",
    "fresh", "juice", "bread", "daily", "news", "sale", "price", "total", "gate", "platform", "hotel", "bank", "post",
    "police", "fire", "taxi", "bus",
)  # fmt: skip


# --- text --------------------------------------------------------------------------------------------------------------


def fonts(size: int, rng: np.random.Generator) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """A font of that size in pixels, drawn from those of the machine and Pillow's own."""
    files = _font_files()
    choice = int(rng.integers(len(files) + 1))
    return ImageFont.load_default(size) if choice == len(files) else ImageFont.truetype(str(files[choice]), size)


def _font_files(found: list[list[Path]] = []) -> list[Path]:  # noqa: B006 - looked for once
    if not found:
        found.append(sorted(f for folder in FONT_FOLDERS if folder.is_dir() for f in folder.rglob("*.ttf")))
    return found[0]


def phrase(rng: np.random.Generator, most: int) -> str:
    """Words and numbers, at most so many letters."""
    text = ""
    while True:
        word = str(rng.integers(1, 10 ** rng.integers(1, 6))) if rng.random() < 0.3 else WORDS[rng.integers(len(WORDS))]
        word = (word, word.upper(), word.capitalize())[rng.integers(3)]
        longer = f"{text} {word}".strip()
        if len(longer) > most or (text and rng.random() < 0.25):
            return text or word[:most]
        text = longer


def text_line(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """A line of text on a plain, noisy or shaded ground, as a detector would cut it out, and what it says."""
    text = phrase(rng, 24)
    font = fonts(int(rng.integers(20, 56)), rng)
    left, top, right, bottom = font.getbbox(text)
    margin = int(rng.integers(3, 10))
    ground = rng.integers(0, 256, 3)
    ink = _contrasting(ground, rng)
    image = Image.new(
        "RGB", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin), tuple(ground.tolist())
    )
    ImageDraw.Draw(image).text((margin - left, margin - top), text, tuple(ink.tolist()), font)
    angle = float(rng.normal(0, 1))
    image = image.rotate(angle, Image.Resampling.BILINEAR, expand=False, fillcolor=tuple(ground.tolist()))
    return _worn(image, rng), text


def captcha(rng: np.random.Generator, size: tuple[int, int] = (160, 64)) -> tuple[Image.Image, str]:
    """Four to six letters, each turned and shifted, with lines and dots over them, and what they are."""
    text = "".join(CAPTCHA_LETTERS[i] for i in rng.integers(0, len(CAPTCHA_LETTERS), rng.integers(4, 7)))
    width, height = size
    ground = rng.integers(190, 256, 3)
    image = Image.new("RGB", size, tuple(ground.tolist()))
    step = (width - 12) / len(text)
    for number, letter in enumerate(text):
        font = fonts(int(rng.integers(30, 44)), rng)
        tile = Image.new("L", (64, 64))
        ImageDraw.Draw(tile).text((32, 32), letter, 255, font, anchor="mm")
        tile = tile.rotate(float(rng.normal(0, 12)), Image.Resampling.BILINEAR)
        place = (round(6 + (number + 0.5) * step - 32 + rng.normal(0, 1.5)), round(height / 2 - 32 + rng.normal(0, 4)))
        image.paste(tuple(_contrasting(ground, rng).tolist()), place, tile)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        ends = [tuple(rng.integers(0, size).tolist()) for _ in range(2)]
        pen.line([*ends], tuple(rng.integers(60, 220, 3).tolist()), 1)
    for x, y in rng.integers(0, size, (int(rng.integers(20, 120)), 2)).tolist():
        pen.point((x, y), tuple(rng.integers(0, 256, 3).tolist()))
    return _worn(image, rng, most_blur=0.5), text


def photo_with_text(photo: Image.Image, rng: np.random.Generator, size: int) -> Image.Image:
    """The middle of a photo, size x size pixels, with one to five lines of text written over it."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    image = photo.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    for _ in range(int(rng.integers(1, 6))):
        text = phrase(rng, 18)
        font = fonts(int(rng.integers(14, 44)), rng)
        tile = Image.new("L", (size, size))
        place = tuple(rng.integers(0, size * 3 // 4, 2).tolist())
        ImageDraw.Draw(tile).text(place, text, 255, font)
        tile = tile.rotate(float(rng.normal(0, 6)), Image.Resampling.BILINEAR)
        image.paste(tuple(rng.integers(0, 256, 3).tolist()), (0, 0), tile)
    return _worn(image, rng, most_blur=0.6)


def _contrasting(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour whose brightness differs from the ground's by 70 or more."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        colour = rng.integers(0, 256, 3)
        if abs((colour - ground) @ weights) >= 70:
            return colour


def _worn(image: Image.Image, rng: np.random.Generator, *, most_blur: float = 1.0) -> Image.Image:
    """Blur, shading and noise of a camera."""
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, most_blur))))
    pixels = np.asarray(image, np.float32)
    shade = np.linspace(rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.1), pixels.shape[1])[None, :, None]
    noise = rng.normal(0, rng.uniform(0, 12), pixels.shape)
    return Image.fromarray(np.clip(pixels * shade + noise, 0, 255).astype(np.uint8))


# --- what the networks take --------------------------------------------------------------------------------------------


def recognizer_input(image: Image.Image, size: tuple[int, int] = (48, 320)) -> np.ndarray:
    """f32[1, 3, 48, 320]: BGR, height 48, the aspect kept, filled with 0 on the right. Source: RapidOCR 1.4.4."""
    height, width = size
    wide = min(width, max(1, -(-height * image.width // image.height)))
    pixels = np.asarray(image.convert("RGB").resize((wide, height), Image.Resampling.BILINEAR), np.float32)
    made = np.zeros((1, 3, height, width), np.float32)
    made[0, :, :, :wide] = (pixels[:, :, ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return made


def captcha_input(image: Image.Image) -> np.ndarray:
    """f32[1, 1, 64, W]: grey, 0..1, the aspect kept. Source: ddddocr 1.6.1."""
    width = image.width * 64 // image.height
    pixels = np.asarray(image.resize((width, 64), Image.Resampling.LANCZOS).convert("L"), np.float32)
    return pixels[None, None] / 255


def captcha_detector_input(image: Image.Image, side: int = 416) -> np.ndarray:
    """f32[1, 3, 416, 416]: BGR, 0..255, the aspect kept, filled with 114 right and below. Source: ddddocr 1.6.1."""
    scale = min(side / image.height, side / image.width)
    size = (int(image.width * scale), int(image.height * scale))
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR), np.float32)
    made = np.full((1, 3, side, side), 114, np.float32)
    made[0, :, : size[1], : size[0]] = pixels[:, :, ::-1].transpose(2, 0, 1)
    return made


def plates(data: Path) -> Iterator[tuple[Image.Image, str]]:
    """Every crop of a licence plate, and what it says: with the dot that is printed after province and city."""
    with (data / "plates" / "labels.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["file"].startswith("crops/"):
                with Image.open(data / "plates" / row["file"]) as image:
                    yield image.convert("RGB"), f"{row['plate'][:2]}·{row['plate'][2:]}"


# --- speech ------------------------------------------------------------------------------------------------------------

RATE, WINDOW, STEP, BANDS, FRAMES = 16000, 400, 160, 40, 160
_LOUDNESS_DB = -30.0


def voices(data: Path, per_speaker: int = 24, seed: int = 0) -> Iterator[tuple[np.ndarray, str]]:
    """Mel frames f32[1, 160, 40] of 1.6 s of speech, and the speaker: LibriSpeech utterances, FSDD digits joined."""
    rng = np.random.default_rng(seed)
    for path in sorted((data / "librispeech-clean").glob("*.flac")):
        mels = mel_frames(loud(_read(path)))
        yield from ((part, f"librispeech {path.name.split('-')[0]}") for part in _windows(mels, per_speaker))
    recordings: dict[str, list[Path]] = {}
    for path in sorted((data / "fsdd" / "recordings").glob("*.flac")):
        recordings.setdefault(path.stem.split("_")[1], []).append(path)
    for speaker, paths in recordings.items():
        order = rng.permutation(len(paths))
        for number in range(per_speaker):
            joined = np.concatenate([_read(paths[i]) for i in order[6 * number : 6 * number + 6]])
            mels = mel_frames(loud(joined))
            if len(mels) >= FRAMES:
                yield mels[None, :FRAMES], f"fsdd {speaker}"


def _windows(mels: np.ndarray, most: int) -> Iterator[np.ndarray]:
    starts = range(0, len(mels) - FRAMES + 1, FRAMES // 2)
    for start in list(starts)[:most]:
        yield mels[None, start : start + FRAMES]


def _read(path: Path) -> np.ndarray:
    """f64[n], mono, 16 kHz; another rate is resampled by Fourier transform."""
    import soundfile

    wave, rate = soundfile.read(path, dtype="float64")
    wave = wave if wave.ndim == 1 else wave.mean(axis=1)
    if rate == RATE:
        return wave
    count = len(wave) * RATE // rate
    spectrum = np.fft.rfft(wave)
    kept = np.zeros(count // 2 + 1, complex)
    kept[: min(len(kept), len(spectrum))] = spectrum[: len(kept)]
    return np.fft.irfft(kept, count) * count / len(wave)


def loud(wave: np.ndarray) -> np.ndarray:
    """The wave, raised to -30 dB of full scale where it is quieter. Resemblyzer also cuts out silence, which is not done here."""
    level = 20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-12)
    return wave * 10 ** (max(0.0, _LOUDNESS_DB - level) / 20)


def mel_frames(wave: np.ndarray) -> np.ndarray:
    """f32[frames, 40]: power in mel bands of 25 ms windows every 10 ms, centred, as librosa's `melspectrogram` makes them.

    Source: librosa's documentation (Hann window, zero padding, Slaney's mel scale and area normalization).
    """
    padded = np.pad(wave, WINDOW // 2)
    starts = np.arange(0, len(padded) - WINDOW + 1, STEP)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.fft.rfft(padded[starts[:, None] + np.arange(WINDOW)] * window)
    return (np.abs(spectrum) ** 2 @ mel_filters().T).astype(np.float32)


def mel_filters() -> np.ndarray:
    """f64[40, 201]: triangles between 42 points, equally far apart on Slaney's mel scale from 0 to 8 kHz, each of area 1.

    Source: Slaney 1998, Auditory Toolbox: linear below 1 kHz (200/3 Hz a mel), logarithmic above (6.4^(1/27) a mel).
    """
    linear, knee, step = 200 / 3, 1000.0, np.log(6.4) / 27
    top = knee / linear + np.log(RATE / 2 / knee) / step
    mels = np.linspace(0, top, BANDS + 2)
    hertz = np.where(mels < knee / linear, mels * linear, knee * np.exp(step * (mels - knee / linear)))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (hertz[2:] - hertz[:-2]))[:, None]


# --- files -------------------------------------------------------------------------------------------------------------


def save_arrays(
    path: Path, name: str, arrays: Sequence[np.ndarray], labels: Sequence[str] = (), groups: Sequence[str] = ()
) -> Path:
    """One .npz of samples [n, ...] with labels and groups where given."""
    more = {key: np.array(values) for key, values in (("label", labels), ("group", groups)) if len(values)}
    np.savez(path, **{name: np.concatenate(arrays)}, **more)  # type: ignore[arg-type]
    return path
