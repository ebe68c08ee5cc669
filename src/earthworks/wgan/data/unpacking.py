"""Readers of packed files and images, with a bound on the size that a small file may unpack to."""

import gzip
import os
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from earthworks.runs import EarthworksError
from earthworks.runs.files import open_regular
from earthworks.transport.readers.arrays import ANY_SIZE, EXPANSION, check_expansion

MOST_PIXELS = 1 << 24  # of one image, 4,096 x 4,096


def content_of(path: Path, num_bytes: int | None = None) -> bytes:
    """The bytes of a file, or its first `num_bytes`, unpacked where it is .gz or .xz. Raises EarthworksError for
    unreadable files and for compression bombs."""
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            limit = max(ANY_SIZE, EXPANSION * size) + 1
            wanted = limit if num_bytes is None else min(num_bytes, limit)
            if path.suffix == ".gz":
                with gzip.open(stream) as packed:
                    content = packed.read(wanted)
            elif path.suffix == ".xz":
                from earthworks.corpus.readers.streams import beginning, blocks

                content = bytes(beginning(blocks(stream, f"{path}"), wanted)[0][:wanted])
            else:
                content = stream.read(wanted)
    except (OSError, EOFError, zlib.error) as error:
        raise EarthworksError(f"{path} could not be read: {error}") from None
    check_expansion(f"{path}", len(content), size)
    return content


def image_array(file: Path, stream: IO[bytes]) -> tuple[np.ndarray, tuple[int, int]]:
    """The bytes of one image, and its width and height. Raises EarthworksError for any failure of the image library."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # faults of a file become errors, or are harmless
            with Image.open(stream) as image:
                size = image.size
                if size[0] * size[1] > MOST_PIXELS:
                    raise EarthworksError(
                        f"{file} has {size[0]:,} x {size[1]:,} pixels; at most {MOST_PIXELS:,} are read: make it smaller"
                    )
                return pixels(image), size
    except EarthworksError:
        raise
    except Exception as error:  # from any decoder: damaged files, text chunks of megabytes, sizes of gigabytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "MAX_TEXT_CHUNK" in reason:
            reason = "its text metadata is too large for the image library; save the image again without it"
        raise EarthworksError(f"{file} could not be read as an image: {reason}") from None


def pixels(image: Any) -> np.ndarray:
    """(h, w) or (h, w, 3) bytes of a Pillow image. Of 16 bits the upper 8 are kept; Pillow itself clips at 255."""
    if image.mode.startswith("I"):
        return (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(image)
