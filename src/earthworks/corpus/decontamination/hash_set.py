"""Fast lookup of 64-bit hashes in a fixed set: a bitmap rejects most, a directory of the sorted set locates the rest."""

import numpy as np

from earthworks.compilation import compiled


def directory_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For sorted distinct keys: the first key for each value of the upper bits, and a bitmap of the lower bits.

    The directory has about one key per entry, the bitmap 32 to 64 bits per key, so at most one hash in 32 is looked up
    without success. Memory: 8 to 16 bytes per key.
    """
    bits = max(1, (len(keys) - 1).bit_length())
    upper = np.arange((1 << bits) + 1).astype(np.uint64) << np.uint64(64 - bits)
    directory = np.searchsorted(keys, upper[:-1])
    bitmap = np.zeros(1 << bits, np.uint32)
    if len(keys):
        np.bitwise_or.at(bitmap, (keys >> np.uint64(5)) & np.uint64(len(bitmap) - 1), bit(keys))
    return np.r_[directory, len(keys)].astype(np.int32), bitmap


def bit(keys: np.ndarray) -> np.ndarray:
    return np.uint32(1) << (keys & np.uint64(31)).astype(np.uint32)


@compiled
def look_up(hashes, keys, directory, bitmap, found):
    """Set found[k] to the index of hashes[k] in `keys`, or -1."""
    mask = np.uint64(len(bitmap) - 1)
    bits = np.uint64(0)
    while np.int64(1) << bits < len(bitmap):
        bits += np.uint64(1)
    for k in range(len(hashes)):
        hash = hashes[k]
        found[k] = -1
        if bitmap[hash >> np.uint64(5) & mask] >> np.uint32(hash & np.uint64(31)) & 1:
            upper = hash >> (np.uint64(64) - bits)
            for place in range(directory[upper], directory[upper + np.uint64(1)]):
                if keys[place] == hash:
                    found[k] = place
                    break
