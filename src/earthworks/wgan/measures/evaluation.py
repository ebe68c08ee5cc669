"""Evaluation of a generator: distances to real samples, each with its kind, null, interval and n.

Held-out real samples are divided in two. Both the generated samples and the second half are measured against the first
half; the latter gives the null, the value of a perfect generator at the same sizes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earthworks.report.writing import write_figures
from earthworks.runs import EarthworksError, Progress, RunFolder, json_text, lock, write_result
from earthworks.runs.lock import PATIENCE, unless_busy
from earthworks.runs.progress import note
from earthworks.runs.terminal import typed
from earthworks.training.precision import choose_device
from earthworks.transport.exact import wasserstein
from earthworks.transport.gaussian import frechet_distance
from earthworks.transport.lipschitz import lower_bounds
from earthworks.transport.result import Distance
from earthworks.transport.sliced import sliced_wasserstein
from earthworks.wgan.data.datasets import STACKED, Dataset, load_dataset
from earthworks.wgan.measures.classifier import Classifier, load_classifier, train_classifier
from earthworks.wgan.measures.features import Extractor, custom, pca, pixels
from earthworks.wgan.measures.measure import Measure
from earthworks.wgan.measures.neighbours import nearest_training, precision_recall_density_coverage
from earthworks.wgan.measures.quality import kernel_distance, label_coverage, mode_coverage
from earthworks.wgan.sample_grid import grid, png, to_bytes
from earthworks.wgan.sampling import draw, load, wgan_run

EXACT = 1000  # points of each kind in exact distances; more take minutes
PERMUTATIONS, EXACT_PERMUTATIONS = 40, 20  # for the nulls; an exact distance of 1,000 points takes a second
NEIGHBOURS = 12  # samples shown with their nearest training images
MOST = 10_000  # samples of each kind
STACKED_MODES = 1000


@dataclass(frozen=True)
class Samples:
    """Three equally large sets on the scale of the networks: generated, real, and other real samples."""

    generated: Tensor
    real: Tensor
    other: Tensor


def evaluate(
    run: str | Path,
    *,
    data: str | None = None,
    num: int | None = None,
    features: str | None = None,
    checkpoint: str = "last",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the generator of a run against held-out samples (see `evaluate_run` for the settings).

    Returns {"run", "checkpoint", "num", "measures": [{"name", "value", "kind", "null", "interval", "n", "m", "remark"}]}.
    """
    folder, config = wgan_run(run)
    for name in (features or "").split(","):
        if ":" in name:
            custom(name)  # refuses features that cannot be imported before minutes of measuring
    dataset = load_dataset(data or config["data"], validation=config["validation"], seed=config["seed"])
    if list(dataset.shape) != list(config["shape"]):
        raise EarthworksError(
            f"{dataset.name} holds samples of shape {dataset.shape}, but the run generates {config['shape']}"
        )
    if data is None and dataset.digest != config["data_digest"]:
        raise EarthworksError(
            f"{dataset.name} no longer holds the samples that {run} was trained on: give data to compare with by --data"
        )
    generator, critic = load(run, checkpoint=checkpoint, device=device)
    samples = draw_samples(dataset, generator, config["noise"], num, seed)
    measures: list[dict[str, Any]] = []
    with Progress("measuring") as progress:
        for done, measure in enumerate(all_measures(folder, dataset, samples, critic, features, seed, device)):
            measures.append(measure)
            progress.show(f"{measure['name']} {measure['value']:.4g} ({done + 1} done)")
    size = len(samples.generated)
    return {"run": str(folder.path), "checkpoint": checkpoint, "num": size, "seed": seed, "measures": measures}


def draw_samples(dataset: Dataset, generator: nn.Module, noise: int, num: int | None, seed: int) -> Samples:
    """`num` samples of each kind, by default half of the held-out ones; fresh ones of a known distribution."""
    if num is not None and num < 2:
        raise EarthworksError(f"--num is {num}; it must be at least 2")
    if dataset.draw is not None:
        size = num or MOST
        real, other = dataset.draw(size, 2 * seed + 1_000_003), dataset.draw(size, 2 * seed + 1_000_004)
    else:
        size = min(num or MOST, len(dataset.held_out) // 2)
        if num is not None and num > size:
            note(f"notice: --num {num:,} is more than half of the held-out samples: using {size:,}")
        if size < 2:
            raise EarthworksError(
                f"{len(dataset.held_out)} held-out samples are too few to compare with; at least 4 are needed"
            )
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(dataset.held_out), generator=random)
        real, other = (dataset.scaled(dataset.held_out[part]) for part in (order[:size], order[size : 2 * size]))
    generated = draw(generator, size, seed=seed, noise=noise)
    if not torch.isfinite(generated).all():
        raise EarthworksError("the generator produces non-finite values: its training has diverged")
    return Samples(generated, real.cpu(), other.cpu())


def all_measures(
    folder: RunFolder,
    dataset: Dataset,
    samples: Samples,
    critic: nn.Module,
    features: str | None,
    seed: int,
    device: str,
) -> Iterator[dict[str, Any]]:
    """Yield all measures in turn, cheap and exact ones first."""
    yield from transported(samples, critic, seed)
    centres = dataset.centres
    if centres is not None:
        yield from coverage(lambda points: mode_coverage(points, centres, dataset.std, seed=seed), samples)
    classifier = labelled_classifier(folder, dataset, device) if len(dataset.shape) == 3 else None
    for extractor in extractors(dataset, samples, features, classifier):
        yield from in_features(extractor, samples, seed)
    if classifier is not None:
        yield described(classifier.held_out_accuracy, remark="of the classifier whose features and classes are used")
        num_modes, label = classes(dataset, classifier)
        remark = f"by the classes of {classifier}"
        yield from coverage(lambda images: label_coverage(label(images), num_modes, seed=seed), samples, remark)
    yield memorisation(folder, dataset, samples, seed)


def transported(samples: Samples, critic: nn.Module, seed: int) -> Iterator[dict[str, Any]]:
    """Distances between the samples themselves, and the critic's estimate and lower bounds on the same points."""
    x, y, z = (part[:EXACT].flatten(1) for part in (samples.generated, samples.real, samples.other))
    for p in (1, 2):
        yield assessed(wasserstein(x, y, p=p), wasserstein(z, y, p=p), seed, EXACT_PERMUTATIONS)
    on_device = next(critic.parameters()).device
    with torch.no_grad():
        on_fake, on_real = (
            critic(part[:EXACT].to(on_device)).float().cpu() for part in (samples.generated, samples.real)
        )
    gap = float(on_real.mean() - on_fake.mean())
    remark = "mean f(real) - mean f(generated) on held-out samples: on the critic's own scale, not a distance"
    yield {"name": "critic_gap", "value": gap, "kind": "estimate", "n": len(y), "m": len(x), "remark": remark}
    bounds = lower_bounds(on_real, on_fake, y, x)
    for name, value in (("slope", bounds.by_slope), ("c_transform", bounds.by_c_transform)):
        remark = "the critic's bound on wasserstein_1 of these points"
        kind = "lower bound"
        yield {
            "name": f"critic_by_{name}",
            "value": float(value),
            "kind": kind,
            "n": len(y),
            "m": len(x),
            "remark": remark,
        }
    everything = [part.flatten(1) for part in (samples.generated, samples.real, samples.other)]
    for p in (1, 2):
        value, null = (
            sliced_wasserstein(each, everything[1], p=p, seed=seed) for each in (everything[0], everything[2])
        )
        yield assessed(value, null, seed)


def assessed(distance: Distance, null: Distance, seed: int, permutations: int = PERMUTATIONS) -> dict[str, Any]:
    """A distance with its interval, and the distance between two real samples as its null."""
    distance.assess(num_permutations=permutations, seed=seed)
    return {
        "name": distance.name,
        "value": float(distance),
        "kind": distance.kind,
        "null": float(null),
        "interval": list(distance.interval or ()),
        "p_value": distance.p_value,
        "n": distance.m,
        "m": distance.n,
        "remark": distance.solver,
    }


def described(measure: Measure, null: float | None = None, kind: str = "estimate", remark: str = "") -> dict[str, Any]:
    return {
        "name": measure.name,
        "value": measure.value,
        "kind": kind,
        "null": null,
        "interval": list(measure.interval),
        "n": measure.n,
        "m": measure.m,
        "remark": remark,
    }


def coverage(
    measured: Callable[[Tensor], dict[str, Measure]], samples: Samples, remark: str = ""
) -> Iterator[dict[str, Any]]:
    """Modes, their evenness and the share of high-quality samples, for generated and for real samples."""
    value, null = measured(samples.generated), measured(samples.other)
    for name, measure in value.items():
        yield described(measure, null[name].value, remark=remark)


def extractors(
    dataset: Dataset, samples: Samples, features: str | None, classifier: Classifier | None
) -> list[Extractor]:
    """The extractors named, else principal components and, where there are labels, the classifier."""
    if len(dataset.shape) == 1 and features is None:
        return []
    size = len(samples.real)
    if features is None:
        found: list[Extractor] = [pca(dataset.scaled(dataset.train[:MOST]), dims=min(64, max(1, size // 4)))]
        if classifier is not None and size > classifier.network.hidden.out_features:
            found.append(classifier)
        return found
    found = []
    for name in features.split(","):
        if name == "classifier":
            if classifier is None:
                raise EarthworksError(
                    f"{dataset.name} has no labels, which the features 'classifier' need: use pca or pixels"
                )
            found.append(classifier)
        elif name in ("pixels", "pca"):
            found.append(pixels() if name == "pixels" else pca(dataset.scaled(dataset.train[:MOST])))
        elif ":" in name:
            found.append(custom(name))
        else:
            raise EarthworksError(f"unknown features {name!r}; expected pixels, pca, classifier, or module:function")
        width = found[-1](samples.real[:2]).shape[1]
        if size <= width:
            raise EarthworksError(
                f"a Fréchet distance of {width} features needs more than {width} samples of each kind; there are {size}: "
                "hold out more (--validation), or use fewer features (pca)"
            )
    return found


def in_features(extractor: Extractor, samples: Samples, seed: int) -> Iterator[dict[str, Any]]:
    """Fréchet and kernel distance, precision, recall, density and coverage, in one kind of features."""
    x, y, z = (extractor(part) for part in (samples.generated, samples.real, samples.other))
    fitted = frechet_distance(x, y)
    measure = assessed(fitted, frechet_distance(z, y), seed)
    yield {**measure, "name": f"frechet[{extractor}]", "remark": f"{x.shape[1]} features, no root"}
    kernel = described(kernel_distance(y, x, seed=seed), kernel_distance(y, z, seed=seed).value)
    yield {**kernel, "name": f"kernel[{extractor}]", "kind": "cost", "remark": "squared MMD, cubic kernel, unbiased"}
    value, null = precision_recall_density_coverage(y, x), precision_recall_density_coverage(y, z)
    for name, found in value.items():
        expected = found.details.get("expected")
        remark = "" if expected is None else f"{expected:.3f} is expected of the true distribution"
        yield {**described(found, null[name].value, remark=remark), "name": f"{name}[{extractor}]"}


def labelled_classifier(folder: RunFolder, dataset: Dataset, device: str) -> Classifier | None:
    """The classifier stored with the run, trained on the labels at the first evaluation; None without labels."""
    if dataset.labels is None:
        return None
    file = folder.path / "classifier.safetensors"
    if file.exists():
        return load_classifier(file)
    images = [dataset.scaled(part) for part in (dataset.train, dataset.held_out)]
    labels = list(dataset.labels)
    if dataset.name.startswith(STACKED):  # one digit per channel: its classifier is applied to each
        images, labels = [part[:, :1] for part in images], [part // 100 for part in labels]
    with Progress("training a classifier on the labels") as progress:
        classifier = train_classifier(
            (images[0], labels[0]), (images[1], labels[1]), on_progress=lambda share: progress.show(f"{share:.0%}")
        )
    classifier.save(file)
    return classifier


def classes(dataset: Dataset, classifier: Classifier) -> tuple[int, Callable[[Tensor], Tensor]]:
    """The number of modes that the labels distinguish, and a function from images to modes."""
    if not dataset.name.startswith(STACKED):
        return len(classifier.network.output.bias), classifier.labels

    def number(images: Tensor) -> Tensor:
        digits = [classifier.labels(images[:, channel : channel + 1]) for channel in range(3)]
        return 100 * digits[0] + 10 * digits[1] + digits[2]

    return STACKED_MODES, number


def memorisation(folder: RunFolder, dataset: Dataset, samples: Samples, seed: int) -> dict[str, Any]:
    """Whether generated samples are nearer to the training data than fresh real ones, with a figure of the nearest."""
    training = dataset.scaled(dataset.train)
    x, y = (part[: 2 * EXACT].flatten(1) for part in (samples.generated, samples.real))
    found = nearest_training(x, training.flatten(1), y, seed=seed)
    if len(dataset.shape) == 3:
        pairs = torch.stack([samples.generated[:NEIGHBOURS], training[found.indices[:NEIGHBOURS, 0]]]).flatten(0, 1)
        folder.figures.mkdir(exist_ok=True)
        write_figures(folder.figures, {"neighbours": png(grid(to_bytes(pairs), NEIGHBOURS))})
    remark = f"nearest training sample, generated over held out: 1 is right, near 0 copies; p {found.p_value:.2g}"
    return {**described(found.ratio, 1.0, remark=remark), "p_value": found.p_value}


def evaluate_run(
    run: str,
    *,
    data: str | None = None,
    num: int | None = None,
    features: str | None = None,
    checkpoint: str = "last",
    device: str = "auto",
    seed: int = 0,
    json: bool = False,
) -> str:
    """Measure the generator of a run: distances, coverage, memorisation, each with the value for real samples.

    Args:
        run: the run folder.
        data: data to compare with; by default the run's own held-out part.
        num: samples of each kind; by default half of the held-out ones, or 10,000 of a known distribution.
        features: features of images: `pixels`, `pca`, `classifier` (needs labels), `module:function`, or several
            separated by commas; by default pca and, with labels, the classifier.
        checkpoint: `last`, `best` (lowest validation), or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: seed of the noise, the division of the held-out samples, and the resampling.
        json: print everything as JSON.
    """
    from earthworks.report import write_report

    choose_device(device)
    folder, _ = wgan_run(run)
    result = evaluate(run, data=data, num=num, features=features, checkpoint=checkpoint, device=device, seed=seed)
    with lock(folder.path, "evaluation.json", patience=PATIENCE):
        write_result(folder.path / "evaluation.json", result)
    with unless_busy(f"earthworks report {typed(run)}"):
        note(f"report {write_report([run])}")
    return json_text(result) if json else table(result)


def table(result: dict[str, Any]) -> str:
    """The measures as lines for a terminal."""
    lines = [f"{'':<30}{'value':>10}  {'95 % interval':<21}{'real':>9}  {'n':>6}  {'kind':<12}"]
    for measure in result["measures"]:
        low_high = measure.get("interval") or ()
        interval = f"[{low_high[0]:.4g}, {low_high[1]:.4g}]" if low_high else ""
        interval = "none" if low_high and any(map(math.isnan, low_high)) else interval
        null = measure.get("null")
        shown = "" if null is None else number(null)
        n = measure["n"] or measure["m"]
        value = number(measure["value"])
        line = f"{measure['name']:<30}{value:>10}  {interval:<21}{shown:>9}  {n:>6,}  {measure['kind']:<12}"
        lines.append(f"{line}{measure['remark']}".rstrip())
    lines.append(
        "real: the same measure of held-out samples against other held-out samples, as for a perfect generator"
    )
    return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unknown" if math.isnan(value) else "infinite"
