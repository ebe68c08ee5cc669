"""`earthworks evaluate card`: what a run's own files say of its model, as the model card that a release needs.

Every number is one of a file of the run, or a count of them. What was not measured is said to be missing, with the
command that measures it; nothing else is claimed. The form is that of Mitchell et al. 2019, as the Hugging Face hub has it:
Markdown after a YAML block whose `model-index` machines read.
"""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from earthworks.evaluation.cards.card import Card
from earthworks.evaluation.cards.gan import describe as describe_gan
from earthworks.evaluation.cards.language_model import describe as describe_language_model
from earthworks.evaluation.cards.markdown import bullets, front_matter, plain
from earthworks.runs import EarthworksError, RunFolder, write_bytes
from earthworks.runs.changed_settings import changed_settings
from earthworks.runs.files import read_regular
from earthworks.runs.metrics import log_fault
from earthworks.runs.progress import note
from earthworks.training import checkpoint

KINDS = ("gopher", "wgan")  # of run that have a card
LARGEST_CARD = 1 << 24  # bytes


def write_card(run: str | Path, output: str | Path | None = None) -> Path:
    """Write the model card of a run, by default RUN/README.md, and return where it is; `write_card("runs/a")`.

    Reads config.yaml, environment.json, metrics.jsonl, evaluation.json, and of a language model data/index.json, the
    manifest of the corpus it names, tasks.json, bias.json and toxicity.json; each but the first may be missing. An
    existing file that this did not write, or that was edited since, is not overwritten. Raises EarthworksError where there
    is no run.
    """
    folder = RunFolder.open(run)
    kind = folder.read_config().get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise EarthworksError(
            f"{folder.config_file} gives the kind {kind!r}; a card wants a run of {' or '.join(KINDS)}"
        )
    path = Path(output) if output is not None else folder.path / "README.md"
    refuse_others(path)
    described = describe_language_model if kind == "gopher" else describe_gan
    card = described(folder)
    if faults := [each for each in (changed_settings(folder), altered_log(folder)) if each]:
        for sentence in faults:
            note(f"notice: {sentence}")
        card.sections.append(("What does not fit", plain(" ".join(faults).replace(str(folder.path), "RUN"))))
    text = markdown(folder.path.resolve().name, card)
    refuse_others(path)
    write_bytes(path, signed(text).encode(), new=not os.path.lexists(path))
    return path


def altered_log(folder: RunFolder) -> str | None:
    """A sentence where metrics.jsonl is not what it was when the newest checkpoint was saved."""
    with suppress(EarthworksError):  # a damaged checkpoint is said by what reads it
        state = checkpoint.newest_state(folder)
        if state is not None and type(state.get("step")) is int:
            return log_fault(folder.metrics_file, state)
    return None


def signed(text: str) -> str:
    """The card with its own SHA-256 in the signature."""
    return text.replace(SIGNATURE, SIGNATURE.replace(" -->", f", sha256 {digest(text.encode())} -->"), 1)


def refuse_others(path: Path) -> None:
    """EarthworksError where a file is that this command did not write, or that was edited since."""
    if not os.path.lexists(path):
        return
    content = read_regular(path, LARGEST_CARD)
    found = SIGNED.search(content)
    if not found:
        raise EarthworksError(
            f"{path} exists and is no card of this command: say another name by --output, or move it away"
        )
    if not found[1]:
        raise EarthworksError(
            f"{path} does not say whether it was edited, as earlier versions made it: say another name by --output, or move "
            "it away"
        )
    if found[1].decode() != digest(content.replace(found[0], SIGNATURE.encode(), 1)):
        raise EarthworksError(f"{path} was edited after it was made: say another name by --output, or move it away")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


SIGNATURE = "<!-- written by earthworks evaluate card -->"
SIGNED = re.compile(rb"<!-- written by earthworks evaluate card(?:, sha256 ([0-9a-f]{64}))? -->")


def markdown(name: str, card: Card) -> str:
    """The card as a file."""
    parts = [front_matter(card.metadata) + SIGNATURE, f"# {plain(name)}", card.summary]
    for heading, text in card.sections:
        parts += [f"## {heading}", text]
    parts += ["## What was not measured"]
    parts.append(
        bullets([f"{what}: `{how}`" for what, how in card.missing])
        if card.missing
        else "Everything that this card has a place for was measured."
    )
    return "\n\n".join(parts) + "\n"


def card(run: str, *, output: str | None = None) -> str:
    """Write a model card from the files of a run: model, data, training, evaluation, bias, limits, and what is missing.

    Args:
        run: the run folder, of a language model or of a GAN.
        output: where to write it; by default README.md in the run, the name that the Hugging Face hub looks for.
    """
    return str(write_card(run, output))
