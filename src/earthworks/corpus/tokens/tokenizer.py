"""Lossless conversion between text and token ids: byte-fallback BPE, or plain bytes.

bpe     id 0 is `</s>`, the end of a document; 1 .. 256 are the bytes; then the characters of the alphabet; then the
        merges in the order learned. Text is first normalized to NFKC (the paper's choice, as in SentencePiece), and
        decode(encode(text)) == normalize(text) for every str. Spaces stay spaces: SentencePiece's `▁` does not
        distinguish a space from a `▁` in the text. There is no unknown token: a character outside the alphabet becomes
        its UTF-8 bytes. Strings such as `</s>` and `<0x0A>` in a text are ordinary text.
bytes   id b is the byte b of the UTF-8 text, 256 is `</s>`; no normalizer.

There is no start token: in a packed stream every document follows the `</s>` of another, so a model starts a document
from the input `</s>`. Both kinds are saved as a Hugging Face `tokenizer.json` that gives the same ids there (with
split_special_tokens=True if a text may contain `</s>`).
"""

import codecs
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from earthworks.runs import EarthworksError, read_json, write_bytes
from earthworks.runs.progress import note

Item = TypeVar("Item", bound=tuple[Any, ...])
Bytes = bytes  # within the class, `bytes` is the constructor of the byte tokenizer
END_OF_DOCUMENT = "</s>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SMALLEST = 320  # tokens: `</s>`, the bytes, and some room for characters and merges
COVERAGE = 0.9999  # share of the training text's characters in the alphabet; the rarest are seen as bytes, so that the
# byte tokens are trained (free for an ASCII character: one byte, one token)
LONGEST = 24  # characters of one token, so that no long line of dashes occupies the vocabulary
CHUNK = 1 << 16  # least characters of a text encoded together
BATCH = 1 << 22  # characters passed to the library at once: it needs about 100 bytes of memory for each
MOST_ADDED = 20_000_000  # characters that NFKC may add to the training text: it makes 18 of some signs
LARGEST = 1 << 28  # bytes of a file: a vocabulary of 256,000 has 20 million
LONGEST_NAME = 256  # characters of a token in a file: generating such a token outputs that much text

# Pieces that merges cannot cross: a word with one sign or space before it, a digit, signs with the line ends after
# them, line ends with the indentation of the next line, a run of spaces up to the last. At a vocabulary of 4,096 on
# python-docs this gives 3.38 bytes per token on prose and 3.55 on code; words with only a space before them and each
# space of a run alone give 3.07 and 1.98. (?>...) keeps the search linear on long runs of blank lines.
# A piece has at most 256 characters, because the library's time to learn from a piece grows with the square of its
# length: 250 kB of one repeated letter took 29 s without this limit, 0.2 s with it. No word of prose is that long.
PIECES = (
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]{1,256}|\p{N}| ?[^\s\p{L}\p{M}\p{N}]{1,256}[\r\n]{0,256}"
    r"|(?>[\r\n]{1,256}[ \t]{0,256})(?=\S)|\s{0,256}[\r\n]{1,256}|\s{1,256}(?!\S)|\s"
)
# The pieces without that limit, for tokenizers trained by 0.1.0: a tokenizer.json is used as saved.
UNLIMITED_PIECES = (
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|(?>[\r\n]+[ \t]*)(?=\S)|\s*[\r\n]+|\s+(?!\S)|\s"
)
# Between an ASCII sign and a space before a letter a piece always ends and NFKC has no effect: a cut changes no id.
SAFE_CUT = re.compile("[!-~](?= [A-Za-z])")


NO_TOKENS = np.empty(0, np.int64)


class Tokenizer:
    """Made by `Tokenizer.train`, `Tokenizer.bytes` or `Tokenizer.load`; `content` is its tokenizer.json as read."""

    def __init__(self, content: dict[str, Any]):
        self.content = content
        self.kind = "bytes" if content == bytes_content() else "bpe"
        if self.kind == "bytes":
            self.table = [bytes([byte]) for byte in range(256)] + [b""]
            self.end_of_document = 256
            return
        ids = content["model"]["vocab"]
        self.table = [b""] * len(ids)
        for token, id in ids.items():
            self.table[id] = token.encode()
        for byte, token in enumerate(BYTES):
            self.table[ids[token]] = bytes([byte])
        self.end_of_document = ids[END_OF_DOCUMENT]
        self.table[self.end_of_document] = b""

        import tokenizers

        self.library: Any = tokenizers.Tokenizer.from_str(json.dumps(content))
        self.library.encode_special_tokens = True  # `</s>` in a text is ordinary text
        self.library.no_truncation()  # transformers saves the settings of its last call
        self.library.no_padding()

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> "Tokenizer":
        """Learn a BPE of at most `vocabulary` tokens (fewer if the texts have no more pairs that occur twice).

        The same texts in the same order give the same tokenizer. About 20 s for 20 MB on one core."""
        from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
        from tokenizers import Tokenizer as Library

        if vocabulary < SMALLEST:
            raise EarthworksError(
                f"a vocabulary of {vocabulary} is too small: expected at least {SMALLEST}, or --tokenizer bytes"
            )
        library = Library(models.BPE(byte_fallback=True, unk_token=None))
        library.normalizer = normalizers.NFKC()
        library.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split("<0x", "isolated"),  # no merge can spell the name of a byte
                pre_tokenizers.Split(Regex(PIECES), "isolated"),
            ]
        )
        library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        normalized, added, left_out = [], 0, 0
        for chunk in (chunk for text in texts for chunk in chunks(text)):
            piece = library.normalizer.normalize_str(chunk)
            if added + len(piece) - len(chunk) > MOST_ADDED:
                left_out += len(chunk)
                continue
            added += len(piece) - len(chunk)
            normalized.append(piece)
        if left_out:
            note(
                f"notice: the tokenizer was not trained on {left_out:,} characters: NFKC makes far longer text of them, "
                f"{MOST_ADDED:,} characters more than it was"
            )
        if not normalized:
            raise EarthworksError("there is no text to train a tokenizer on")
        letters = alphabet(normalized, (vocabulary - len(BYTES) - 1) // 2)
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            max_token_length=LONGEST,
            special_tokens=[END_OF_DOCUMENT, *BYTES],
            show_progress=False,
        )
        library.train_from_iterator(normalized, trainer)
        content = json.loads(library.to_str())
        # as added tokens the byte tokens would match `<0x0A>` written out in a text
        content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] == END_OF_DOCUMENT]
        return cls(content)

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """The 256 bytes and the end of document: a vocabulary of 257."""
        return cls(bytes_content())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json written by `save` (`path`: the file or its folder)."""
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        content = read_json(path, limit=LARGEST)
        check(content, path)
        try:
            return cls(content)
        except BaseException as error:
            # panics of the library's Rust code are not Exceptions
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EarthworksError(
                f"{path} cannot be used as a tokenizer ({reason}): it was altered, or made by another version of the "
                "package tokenizers; restore the saved file"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json atomically."""
        write_bytes(path, self.file_content())

    def file_content(self) -> Bytes:
        """The bytes written by `save`."""
        return (json.dumps(self.content, indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def vocabulary(self) -> int:
        """Number of token ids, including the end of document."""
        return len(self.table)

    @property
    def digest(self) -> str:
        """SHA-256 of the contents in canonical form (sorted keys, no spaces)."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def normalize(self, text: str) -> str:
        """The result of decode(encode(text)): NFKC by the library's Unicode tables for bpe, the text itself for bytes;
        lone surrogates, which are not characters, become U+FFFD."""
        if self.kind == "bytes":
            return scalar(text)
        return "".join(self.library.normalizer.normalize_str(chunk) for chunk in chunks(text))

    def encode(self, text: str) -> np.ndarray:
        """(tokens,) int64, without an end of document."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text, on all cores unless TOKENIZERS_PARALLELISM=false."""
        if self.kind == "bytes":
            return [np.frombuffer(scalar(text).encode(), np.uint8).astype(np.int64) for text in texts]
        found: list[list[np.ndarray]] = [[] for _ in texts]
        numbered = ((number, piece) for number, text in enumerate(texts) for piece in chunks(text))
        for batch in batches(numbered):
            encoded = self.library.encode_batch_fast([piece for _, piece in batch], add_special_tokens=False)
            for (number, _), each in zip(batch, encoded):
                found[number].append(np.fromiter(each.ids, np.int64))
        return [parts[0] if len(parts) == 1 else np.concatenate([NO_TOKENS, *parts]) for parts in found]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of some tokens; invalid UTF-8 becomes U+FFFD, the end of document is dropped."""
        return b"".join(self.table[id] for id in np.asarray(ids, np.int64).tolist()).decode(errors="replace")

    def decode_stream(self) -> "DecodeStream":
        """An incremental decoder."""
        return DecodeStream(self)

    def token_bytes(self, id: int) -> Bytes:
        """The bytes of one token; empty for the end of document."""
        return self.table[id]


class DecodeStream:
    """Incremental decoder: `step` returns the text completed by a token and holds back incomplete characters; `end`
    returns these as U+FFFD."""

    def __init__(self, tokenizer: Tokenizer):
        self.table = tokenizer.table
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self, id: int) -> str:
        return self.decoder.decode(self.table[id])

    def end(self) -> str:
        return self.decoder.decode(b"", final=True)


def chunks(text: str) -> Iterator[str]:
    """`text` in parts of CHUNK to 2 CHUNK characters, cut where no token can cross, if there is such a place."""
    return chunks_of([text])


def chunks_of(blocks: Iterable[str]) -> Iterator[str]:
    """`chunks` of the concatenated blocks; holds 2 CHUNK characters and a block."""
    held, start = "", 0
    for block in blocks:
        held, start = held[start:] + scalar(block), 0
        while len(held) - start > 2 * CHUNK:
            cut = SAFE_CUT.search(held, start + CHUNK, start + 2 * CHUNK)
            end = cut.end() if cut else start + 2 * CHUNK
            yield held[start:end]
            start = end
    if start < len(held):
        yield held[start:]


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Batches of items with BATCH characters; the second member of an item is its text."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item[1])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def scalar(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot encode, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def alphabet(texts: list[str], most: int) -> list[str]:
    """The most frequent characters, until they cover COVERAGE of the texts, but at most `most`."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    wanted = COVERAGE * counts.total()
    letters: list[str] = []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]:
        if wanted <= 0:
            break
        letters.append(character)
        wanted -= count
    return letters


def bytes_content() -> dict[str, Any]:
    """A byte-level BPE without merges: GPT-2's printable stand-in for byte b has id b."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    vocab = {chr(byte if byte in plain else next(others)): byte for byte in range(256)} | {END_OF_DOCUMENT: 256}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    end = {"id": 256, "content": END_OF_DOCUMENT, "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | {"normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "unk_token": None, "byte_fallback": False, "vocab": vocab, "merges": []},
    }


def check(content: Any, path: Path) -> None:
    """Refuse any tokenizer that is not one of ours, as its settings may be harmful: a missing byte token would silently drop
    characters, another normalizer may expand one character to 10 MB, another pattern may never finish."""
    if content == bytes_content():
        return
    try:
        vocab, differs = content["model"]["vocab"], differing(content)
        ids = sorted(vocab.values())
        if not differs and not (ids == list(range(len(ids))) and all(type(id) is int for id in ids)):
            differs = "the ids in model.vocab"
        if not differs and (longest := max(map(len, vocab))) > LONGEST_NAME:
            differs = f"a token of {longest:,} characters"
    except (TypeError, KeyError, AttributeError, ValueError):
        vocab, differs = {}, "its layout"
    if differs:
        raise EarthworksError(
            f"{path} is not a tokenizer of earthworks ({differs}): expected a byte-fallback BPE with {END_OF_DOCUMENT}, "
            "as training saves it"
        )
    missing = [token for token in BYTES if token not in vocab]
    if missing:
        raise EarthworksError(
            f"{path} lacks {len(missing)} of the 256 byte tokens ({missing[0]} first): it would drop characters"
        )


def differing(content: dict[str, Any]) -> str | None:
    """The first setting of a tokenizer.json that `train` never makes. Disabled settings may be present or missing."""
    model = {name: value for name, value in content["model"].items() if value and name not in ("vocab", "merges")}
    if model != {"type": "BPE", "byte_fallback": True}:
        return f"the model {', '.join(f'{name} {value!r:.40}' for name, value in sorted(model.items()))}"
    if content["normalizer"] != {"type": "NFKC"}:
        return "its normalizer"
    if content["pre_tokenizer"] not in [pre_tokenizer(pieces) for pieces in (PIECES, UNLIMITED_PIECES)]:
        return "its pre_tokenizer"
    if [part["type"] for part in content["decoder"]["decoders"]] != ["ByteFallback", "Fuse"]:
        return "its decoder"
    if END_OF_DOCUMENT not in content["model"]["vocab"]:
        return f"no {END_OF_DOCUMENT}"
    if [token["content"] for token in content["added_tokens"]] != [END_OF_DOCUMENT]:
        return "its added_tokens"
    return None


def pre_tokenizer(pieces: str) -> dict[str, Any]:
    """The pre-tokenizer in a tokenizer.json: names of bytes are isolated, so no merge can spell one, then the pieces."""
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    splits = [split | {"pattern": {"String": "<0x"}}, split | {"pattern": {"Regex": pieces}}]
    return {"type": "Sequence", "pretokenizers": splits}
