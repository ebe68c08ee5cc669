"""Documents in, packed tokens out: reading, tokenizing, splitting, packing, and the order of training samples."""

from typing import TYPE_CHECKING, Any

from earthworks.corpus.document import Document as Document
from earthworks.corpus.readers.any_source import files_of as files_of
from earthworks.corpus.readers.any_source import read as read
from earthworks.corpus.readers.any_source import read_input as read_input
from earthworks.corpus.readers.files import InputFile as InputFile
from earthworks.corpus.readers.records import Fault as Fault
from earthworks.corpus.readers.records import Reading as Reading
from earthworks.corpus.readers.sources import Source as Source
from earthworks.corpus.readers.sources import sources as sources
from earthworks.corpus.rules.profiles import PROFILES as PROFILES
from earthworks.corpus.rules.profiles import quality_values as quality_values
from earthworks.corpus.rules.profiles import repetition_values as repetition_values
from earthworks.corpus.tokens.packed_tokens import PackedTokens as PackedTokens
from earthworks.corpus.tokens.packed_tokens import is_packed as is_packed
from earthworks.corpus.tokens.packing import pack as pack
from earthworks.corpus.tokens.tokenizer import Tokenizer as Tokenizer
from earthworks.corpus.tokens.validation_split import sample_text as sample_text

if TYPE_CHECKING:
    from earthworks.corpus.pipeline.command import build as build


def __getattr__(name: str) -> Any:
    """Import `build` lazily: only it needs the compiler (numba), whose import costs training half a second."""
    if name != "build":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from earthworks.corpus.pipeline.command import build

    return build
