"""Files of samples for viewing: a grid of images, or an array of points."""

import io

import numpy as np
import torch
from torch import Tensor

from earthworks import __version__
from earthworks.runs import RunFolder, write_bytes
from earthworks.wgan.data.datasets import Dataset
from earthworks.wgan.networks import value_range

SIDE = 560  # target width of a picture in pixels: small images are enlarged by an integer factor


def write_picture(run: RunFolder, step: int, samples: Tensor, data: Dataset) -> str:
    """Write samples/step-N.png, or .npy for points; returns its name."""
    run.samples.mkdir(exist_ok=True)
    if len(data.shape) == 3:
        name = f"step-{step}.png"
        write_bytes(run.samples / name, png(grid(to_bytes(samples))))
    else:
        name = f"step-{step}.npy"
        write_bytes(run.samples / name, array_bytes(samples.cpu().numpy()))
    return f"samples/{name}"


def to_bytes(samples: Tensor) -> np.ndarray:
    """Convert (n, c, h, w) in the range of the networks to bytes (n, h, w, c)."""
    low, high = value_range(samples.shape[1:]) or (0.0, 1.0)
    values = (samples.float() - low) / (high - low) * 255
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Tile (n, h, w, c) bytes into one picture with white borders of one pixel; unused cells stay white."""
    n, height, width, channels = images.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    picture = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 255, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        picture[top : top + height, left : left + width] = image
    factor = max(1, round(SIDE / picture.shape[1]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def png(picture: np.ndarray) -> bytes:
    """The bytes of a PNG file, with the program and its version as metadata."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", f"Earthworks {__version__}")
    content = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(content, "PNG", pnginfo=about)
    return content.getvalue()


def array_bytes(array: np.ndarray) -> bytes:
    """The bytes that np.save would write."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()
