"""Documents of a data set of the Hugging Face Hub, or of a local folder of one."""

from collections.abc import Iterator
from pathlib import Path

from earthworks.corpus.document import Document
from earthworks.corpus.readers.records import Reading, first_line, record_document, without_surrogates
from earthworks.runs import EarthworksError
from earthworks.runs.errors import missing_extra


def read_hugging_face(data: str, reading: Reading) -> Iterator[Document]:
    """Documents read through the package `datasets`, which caches Hub data on disk."""
    name, config, split = hugging_face_parts(data)
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hf", data) from None
    try:
        folder = Path(name)
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(name)
            if isinstance(rows, datasets.DatasetDict):
                rows = rows[split]
        else:
            rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the package raises many types, its own and those of the network library
        raise EarthworksError(f"{data} could not be loaded: {first_line(error)}") from error
    for row, record in enumerate(rows):
        document = record_document(dict(record), f"{name}:{row}", name, data)
        document.text = without_surrogates(document.text, reading)
        yield document


def hugging_face_parts(data: str) -> tuple[str, str | None, str]:
    """`hf:NAME[:CONFIG][:SPLIT]` -> (name, config or None, split)."""
    name, *rest = data.removeprefix("hf:").split(":")
    if not name or len(rest) > 2:
        raise EarthworksError(f"{data}: expected hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT (hf:NAME::SPLIT)")
    config, split = (rest + ["", ""])[:2]
    return name, config or None, split or "train"
