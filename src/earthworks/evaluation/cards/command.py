"""`earthworks evaluate card`: a model card for release, from the files of a run.

Every number comes from a file of the run, or counts such numbers. What was not measured is listed as missing, with the
command that measures it; nothing else is claimed. The format is that of Mitchell et al. 2019, as on the Hugging Face
hub: Markdown after a YAML block with a machine-readable `model-index`.
"""

import hashlib
import os
import re
from pathlib import Path

from earthworks.evaluation.cards.card import Card
from earthworks.evaluation.cards.gan import describe as describe_gan
from earthworks.evaluation.cards.language_model import describe as describe_language_model
from earthworks.evaluation.cards.markdown import bullets, front_matter, plain
from earthworks.runs import EarthworksError, RunFolder, write_bytes
from earthworks.runs.changed_settings import changed_settings
from earthworks.runs.files import read_regular
from earthworks.runs.progress import note
from earthworks.training import checkpoint

KINDS = ("gopher", "wgan")  # kinds of runs that have a card
LARGEST_CARD = 1 << 24  # bytes


def write_card(run: str | Path, output: str | Path | None = None) -> Path:
    """Write the model card of a run, by default RUN/README.md, and return where it is; `write_card("runs/a")`.

    Reads config.yaml, environment.json, metrics.jsonl, evaluation.json, and for a language model data/index.json, the
    manifest of the corpus it names, tasks.json, bias.json and toxicity.json; all but the first may be missing. An existing
    file that this function did not write, or that was edited since, is not overwritten. Raises EarthworksError if there is
    no run.
    """
    folder = RunFolder.open(run)
    kind = folder.read_config().get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise EarthworksError(
            f"{folder.config_file} gives the kind {kind!r}; a card can be made for {' or '.join(KINDS)}"
        )
    path = Path(output) if output is not None else folder.path / "README.md"
    refuse_others(path)
    described = describe_language_model if kind == "gopher" else describe_gan
    card = described(folder)
    if faults := [each for each in (changed_settings(folder), checkpoint.altered_log(folder)) if each]:
        for sentence in faults:
            note(f"notice: {sentence}")
        card.sections.append(("Inconsistencies", plain(" ".join(faults).replace(str(folder.path), "RUN"))))
    text = markdown(folder.path.resolve().name, card)
    refuse_others(path)
    write_bytes(path, signed(text).encode(), new=not os.path.lexists(path))
    return path


def signed(text: str) -> str:
    """The card with its SHA-256 in the signature."""
    return text.replace(SIGNATURE, SIGNATURE.replace(" -->", f", sha256 {digest(text.encode())} -->"), 1)


def refuse_others(path: Path) -> None:
    """EarthworksError if the file was not written by this command, or was edited since."""
    if not os.path.lexists(path):
        return
    content = read_regular(path, LARGEST_CARD)
    found = SIGNED.search(content)
    if not found:
        raise EarthworksError(
            f"{path} exists and was not written by this command: choose another --output, or move it away"
        )
    if not found[1]:
        raise EarthworksError(
            f"{path} is from an earlier version and may have been edited: choose another --output, or move it away"
        )
    if found[1].decode() != digest(content.replace(found[0], SIGNATURE.encode(), 1)):
        raise EarthworksError(f"{path} was edited after it was made: choose another --output, or move it away")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


SIGNATURE = "<!-- written by earthworks evaluate card -->"
SIGNED = re.compile(rb"<!-- written by earthworks evaluate card(?:, sha256 ([0-9a-f]{64}))? -->")


def markdown(name: str, card: Card) -> str:
    """The card as a file."""
    parts = [front_matter(card.metadata) + SIGNATURE, f"# {plain(name)}", card.summary]
    for heading, text in card.sections:
        parts += [f"## {heading}", text]
    parts += ["## Not measured"]
    parts.append(
        bullets([f"{what}: `{how}`" for what, how in card.missing])
        if card.missing
        else "Everything that this card covers was measured."
    )
    return "\n\n".join(parts) + "\n"


def card(run: str, *, output: str | None = None) -> str:
    """Write a model card from the files of a run: model, data, training, evaluation, bias, limits, and what is missing.

    Args:
        run: the run folder, of a language model or of a GAN.
        output: file to write; by default RUN/README.md, the name that the Hugging Face hub expects.
    """
    return str(write_card(run, output))
