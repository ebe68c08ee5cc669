"""Readers of numeric arrays from .npy and .npz files. The shape in a header is compared with the size of the file before
any memory is allocated, and nothing is unpickled."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from earthworks.runs import EarthworksError
from earthworks.runs.files import open_regular

ANY_SIZE = 1 << 30  # bytes that a compressed file may unpack to, however small it is
EXPANSION = 200  # beyond that, at most this times its own size: images of one colour reach 100, bombs 1,000


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file. Raises EarthworksError for anything but one complete array of numbers."""
    with open_regular(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        return array_from(stream, size, str(path))


def read_npz(path: Path, names: list[tuple[str, ...]], *, first: bool = True) -> list[np.ndarray | None]:
    """For each group of names the first array of that name, or None; `first`: the archive's first array replaces a
    missing first group. Raises EarthworksError for anything but an archive of arrays, and for one that unpacks to far
    more."""
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            found: list[np.ndarray | None] = []
            for group in names:
                wanted = next((name for name in group if name in members), None)
                if wanted is None and first and not found:
                    wanted = next(iter(members), None)
                if wanted is None:
                    found.append(None)
                    continue
                info = members[wanted]
                check_expansion(f"{path}, array {wanted},", info.file_size, info.compress_size)
                with archive.open(info) as member:
                    found.append(array_from(member, info.file_size, f"{path}, array {wanted},"))
            return found
    except EarthworksError:
        raise
    except Exception as error:  # from zipfile and its decompressors
        raise EarthworksError(
            f"{path} is not a readable .npz file of numbers ({type(error).__name__}): it is truncated or of another format"
        ) from None


def array_from(stream: IO[bytes], size: int, name: str) -> np.ndarray:
    """The array that a stream of `size` bytes holds in NumPy's .npy format."""
    try:
        version = np.lib.format.read_magic(stream)  # pyright: ignore[reportArgumentType]
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, dtype = read_header(stream)  # pyright: ignore[reportArgumentType]
        start = stream.tell()
    except Exception:  # the header is a Python literal, invalid in many ways
        raise EarthworksError(
            f"{name} is not a readable .npy file: it is not an array of numbers in NumPy's format"
        ) from None
    if dtype.hasobject:
        raise EarthworksError(f"{name} holds Python objects, not an array of numbers: save it with a numeric dtype")
    if dtype.kind not in "biuf":
        raise EarthworksError(f"{name} has dtype {dtype}; expected numbers")
    count = math.prod(shape)
    if min(shape, default=1) < 0 or count * dtype.itemsize > size - start:
        raise EarthworksError(
            f"{name} declares {count:,} numbers of {dtype.itemsize} bytes in its header but holds {size - start:,} bytes: "
            "it was truncated or altered"
        )
    if count * dtype.itemsize < size - start:
        raise EarthworksError(
            f"{name} holds {size - start - count * dtype.itemsize:,} bytes after the array declared in its header: it was "
            "altered, or several arrays were written into one file; save it again"
        )
    data = stream.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise EarthworksError(f"{name} ends before the {count:,} numbers declared in its header: it was truncated")
    return np.frombuffer(bytearray(data), dtype, count).reshape(shape, order="F" if by_columns else "C")


def check_expansion(name: str, unpacked: int, packed: int) -> None:
    """Raise EarthworksError for a file whose expansion only a compression bomb reaches."""
    if unpacked > max(ANY_SIZE, EXPANSION * packed):
        raise EarthworksError(
            f"{name} would unpack {packed:,} bytes to {unpacked:,}: more than {EXPANSION} times its size, as in "
            "a compression bomb; unpack it yourself if you trust it"
        )
