"""CPU decoding: weights laid out to be read once per token, and one compiled step."""

from earthworks.gopher.decoding.decoder import Decoder

__all__ = ["Decoder"]
