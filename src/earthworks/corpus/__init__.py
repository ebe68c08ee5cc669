"""Documents in, packed tokens out: reading, tokenizing, splitting, packing, and the order of training samples."""

from typing import TYPE_CHECKING, Any

from earthworks.corpus.document import Document as Document
from earthworks.corpus.packed import PackedTokens as PackedTokens
from earthworks.corpus.packed import is_packed as is_packed
from earthworks.corpus.packing import pack as pack
from earthworks.corpus.reading import InputFile as InputFile
from earthworks.corpus.reading import files_of as files_of
from earthworks.corpus.reading import read as read
from earthworks.corpus.reading import read_input as read_input
from earthworks.corpus.records import Fault as Fault
from earthworks.corpus.records import Reading as Reading
from earthworks.corpus.rules import PROFILES as PROFILES
from earthworks.corpus.rules import quality_values as quality_values
from earthworks.corpus.rules import repetition_values as repetition_values
from earthworks.corpus.source import Source as Source
from earthworks.corpus.source import sources as sources
from earthworks.corpus.splitting import sample_text as sample_text
from earthworks.corpus.tokenizer import Tokenizer as Tokenizer

if TYPE_CHECKING:
    from earthworks.corpus.building import build as build


def __getattr__(name: str) -> Any:
    """`build` alone imports the compiler (numba), which takes half a second that training need not wait for."""
    if name != "build":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from earthworks.corpus.building import build

    return build
