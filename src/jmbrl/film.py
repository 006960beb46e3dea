"""Pictures of observations, labelled and put side by side, as GIF, MP4 and contact sheet."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmbrl import checks
from jmbrl.types import Env

HEIGHT, LINE, GAP = 160, 13, 6  # pixels: of a picture, at least for small images; of a line of text; between pictures
SHEET_WIDTH, SHEET_MOMENTS = 1600, 16
FORMATS = ("gif", "mp4", "both")


def renderer(env: Env) -> Callable[[Any], np.ndarray]:
    """Observation to image: the pixels themselves, the environment's own drawing, or bars for a vector."""
    if len(env.spec.obs_shape) == 3:
        return as_image
    if env.render is not None:
        return lambda obs: np.asarray(env.render(obs))
    return _bars


def as_image(obs: Any) -> np.ndarray:
    """``uint8[H, W, 3]`` of an image ``[H, W, C]``, whose floats are in [0, 1]. Of stacked frames the newest."""
    obs = np.asarray(obs)
    image = np.clip(obs if np.issubdtype(obs.dtype, np.integer) else np.nan_to_num(obs) * 255, 0, 255).astype(np.uint8)
    channels = 3 if image.shape[-1] % 3 == 0 else 1
    return np.broadcast_to(image[..., -channels:], (*image.shape[:2], 3))


def _bars(obs: Any) -> np.ndarray:
    """One bar an entry, squashed to (-1, 1) so that one scale serves all."""
    values = np.tanh(np.nan_to_num(np.asarray(obs, float).reshape(-1)))
    image = np.full((HEIGHT, HEIGHT, 3), 255, np.uint8)
    edges = np.linspace(8, HEIGHT - 8, len(values) + 1).astype(int)
    middle = HEIGHT // 2
    for value, left, right in zip(values, edges[:-1], edges[1:], strict=True):
        end = middle - round(value * (middle - 8))
        low, high = sorted((middle, end))
        image[low : high + 1, left : max(right - 1, left + 1)] = (0, 114, 178)
    image[middle] = (120, 120, 120)
    return image


def column(images: Sequence[np.ndarray], labels: Sequence[str]) -> list[Any]:
    """Pictures under their labels (lines apart by newlines), all as large as the largest needs.

    Images less than ``HEIGHT`` high grow a whole number of times, so that every pixel stays a square.
    """
    from PIL import Image, ImageDraw

    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    pictures = [_sized(image) for image in images]
    text = max(round(pen.multiline_textbbox((0, 0), label)[2]) for label in labels) + 8
    top = LINE * max(1 + label.count("\n") for label in labels) + 4
    width, height = max(text, *(p.width for p in pictures)), top + max(p.height for p in pictures)
    framed = []
    for picture, label in zip(pictures, labels, strict=True):
        canvas = Image.new("RGB", (width, height), "white")
        left = (width - picture.width) // 2
        canvas.paste(picture, (left, top))
        pen = ImageDraw.Draw(canvas)
        for i, line in enumerate(label.split("\n")):
            pen.text((left and 4, 2 + LINE * i), line, fill="black")
        pen.rectangle((left, top, left + picture.width - 1, top + picture.height - 1), outline="#BBBBBB")
        framed.append(canvas)
    return framed


def _sized(image: np.ndarray) -> Any:
    from PIL import Image

    picture = Image.fromarray(np.asarray(image, np.uint8))
    if picture.height < HEIGHT:
        times = -(-HEIGHT // picture.height)
        return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
    if picture.height == HEIGHT:
        return picture
    return picture.resize((max(1, round(picture.width * HEIGHT / picture.height)), HEIGHT), Image.Resampling.BOX)


def beside(*columns: list) -> list[Any]:
    """Columns of equally many pictures, left to right."""
    from PIL import Image

    rows = []
    for pictures in zip(*columns, strict=True):
        width = sum(p.width for p in pictures) + GAP * (len(pictures) - 1)
        both, left = Image.new("RGB", (width, max(p.height for p in pictures)), "white"), 0
        for picture in pictures:
            both.paste(picture, (left, 0))
            left += picture.width + GAP
        rows.append(both)
    return rows


def save(stem: Path, frames: list, milliseconds: int, formats: str = "gif", hold: int = 0) -> list[Path]:
    """A film as ``stem.gif``, ``stem.mp4`` or both; the paths written.

    Args:
      stem: the path without its ending.
      frames: PIL images of one size.
      milliseconds: of a frame; browsers slow down those shorter than 20.
      formats: one of ``FORMATS``.
      hold: for how many milliseconds more the last frame stays.

    Raises:
      ValueError: an unknown format, or MP4 without imageio's ffmpeg.
    """
    require(formats)
    milliseconds, written = max(20, milliseconds), []
    if formats != "mp4":
        written.append(stem.with_suffix(".gif"))
        save_gif(written[-1], frames, milliseconds, hold)
    if formats != "gif":
        written.append(stem.with_suffix(".mp4"))
        _save_mp4(written[-1], frames, milliseconds, hold)
    return written


def require(formats: str) -> None:
    """Refuse a format that cannot be written here."""
    checks.choice("format", formats, FORMATS)
    missing = [name for name in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
    if formats != "gif" and missing:
        raise ValueError(
            f"format {formats} needs {' and '.join(missing)}: pip install 'jmbrl[video]' or 'imageio[ffmpeg]'"
        )


def save_gif(path: Path, frames: list, milliseconds: int, hold: int = 0) -> None:
    """An endless GIF that holds its last frame longer; browsers slow down frames shorter than 20 ms."""
    durations = [max(20, milliseconds)] * len(frames)
    durations[-1] += hold
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _save_mp4(path: Path, frames: list, milliseconds: int, hold: int) -> None:
    import imageio.v3 as imageio

    frames = frames + frames[-1:] * round(hold / milliseconds)
    pixels = np.stack([np.asarray(frame) for frame in frames])
    odd = [n % 2 for n in pixels.shape[1:3]]  # colours are stored for two by two pixels
    pixels = np.pad(pixels, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX's: the child becomes ffmpeg at once
        imageio.imwrite(path, pixels, plugin="FFMPEG", fps=1000 / milliseconds, codec="libx264", macro_block_size=2)


def save_sheet(path: Path, frames: list, moments: int = SHEET_MOMENTS) -> Path:
    """About ``moments`` frames spread evenly over the film, in a grid that is read line by line."""
    from PIL import Image

    width, height = (n + 3 * GAP for n in frames[0].size)
    per_line = min(len(frames), max(1, SHEET_WIDTH // width))
    moments = per_line * max(1, round(moments / per_line))  # full lines
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, moments).round().astype(int))]
    lines = -(-len(chosen) // per_line)
    sheet = Image.new("RGB", (per_line * width, lines * height), "white")
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (i % per_line * width + 3 * GAP // 2, i // per_line * height + 3 * GAP // 2))
    sheet.save(path)
    return path
