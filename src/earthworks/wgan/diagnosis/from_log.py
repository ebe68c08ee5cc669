"""Health checks on a run's log: skipped steps, sign errors, gradient norms, critic slope."""

import math
from typing import Any

import numpy as np

from earthworks.wgan.diagnosis.findings import Finding, Undecided
from earthworks.wgan.objectives import OBJECTIVES

Records = list[dict[str, Any]]

SHARE = 0.1  # late values are the median over this last share of the steps
FIRST = 20  # early values are the median of these first steps: a discriminator becomes confident within tens of steps
DECADES = 2.0  # a Wasserstein critic's generator gradient stays within one (Arjovsky et al. 2017, and our own curves)
EPSILON = 1e-8  # added by Adam and RMSProp to a gradient's size: a smaller gradient moves no weight
STEEP, FLAT = 2.0, 0.5  # slopes beyond which the gap is off by a factor of two; healthy runs have 1.0 to 1.3
CHANCE = 2 * math.log(2)  # -E log D(x) - E log(1 - D(G z)) of a discriminator that always answers 1/2


def column(records: Records, key: str) -> np.ndarray:
    """(steps,) float64; NaN where no finite value was recorded."""
    values = [record.get(key) for record in records]
    return np.array([float(value) if isinstance(value, int | float) else np.nan for value in values])


def at_last(values: np.ndarray) -> tuple[float, int]:
    """Median of the last tenth of the finite values, and their number."""
    values = values[np.isfinite(values)]
    num = max(1, round(SHARE * len(values)))
    return float(np.median(values[-num:])), num


def decades_between(before: float, after: float) -> float:
    tiny = 1e-300
    return math.log10(max(after, tiny) / max(before, tiny))


def skipped_steps(records: Records) -> Finding | None:
    """Updates skipped because a loss or a gradient was not finite."""
    bad = [record["step"] for record in records if record.get("skipped") or record.get("loss") is None]
    if not bad:
        return None
    return Finding(
        "steps that were skipped",
        f"In {len(bad):,} of {len(records):,} steps the loss or its gradient was not finite, and updates were skipped; "
        f"the first was step {bad[0]:,}, the last step {bad[-1]:,}.",
        "Lower --learning_rate and --critic_learning_rate (half, then a quarter), and use --precision fp32.",
        {"skipped": len(bad), "first": bad[0], "last": bad[-1]},
    )


def critic_sign(config: dict[str, Any], records: Records) -> Finding | None:
    """A Wasserstein critic's loss is minus its gap plus the penalty, to the last digits; plus the gap means that it is
    trained to score real samples low."""
    loss, gap = column(records, "loss"), column(records, "gap")
    penalty = (
        (config["penalty"] or 0.0) * column(records, "penalty") if OBJECTIVES[config["objective"]].penalty else 0.0
    )
    as_it_should, reversed_ = np.abs(loss - penalty + gap), np.abs(loss - penalty - gap)
    known = np.isfinite(as_it_should)
    share = float((reversed_ < as_it_should)[known].mean()) if known.any() else 0.0
    if share <= 0.5:
        return None
    return Finding(
        "critic's sign reversed",
        f"The critic is trained to score real samples low: in {share:.0%} of the steps its loss is plus its gap "
        f"instead of minus (at the last step gap {gap[known][-1]:.3g}, loss {loss[known][-1]:.3g}).",
        "The critic should minimise E f(G z) - E f(x); swap the two terms of its loss.",
        {"share": share, "gap": float(gap[known][-1]), "loss": float(loss[known][-1])},
    )


def below_chance(records: Records) -> Finding | None:
    """An uninformative discriminator has loss 2 log 2; a worse one lags behind the generator."""
    late, num = at_last(column(records, "loss"))
    if not late > CHANCE:
        return None
    return Finding(
        "critic under-trained",
        f"The discriminator's loss is {late:.3f} (median of the last {num} steps); one that always answers 1/2 has "
        f"{CHANCE:.3f}. It lags behind the generator and gives it no useful gradient.",
        "Raise --critic_steps or --critic_learning_rate.",
        {"loss": late, "chance": CHANCE},
    )


def generator_gradient(config: dict[str, Any], records: Records) -> Finding | Undecided | None:
    """Whether the norm of the generator's gradient fell or rose by decades, or is below the optimizer's epsilon."""
    norms = column(records, "generator_gradient_norm")
    norms = norms[np.isfinite(norms)]
    if not len(norms):
        return Undecided("vanishing or exploding generator gradient", "no finite gradient norm was recorded")
    late, num = at_last(norms)
    first, size = (
        float(np.median(norms[:FIRST])),
        late / math.sqrt(config["parameters"] / 2),
    )  # about half are the generator's
    fell = -decades_between(first, late)
    evidence = {"first": first, "late": late, "decades": -fell, "a_weight": size}
    if fell >= DECADES or size < EPSILON:
        how = (
            f"the norm of its gradient fell from {first:.2g} (median of the first {FIRST} steps) to {late:.2g} (of the last "
            f"{num}), by {fell:.1f} factors of ten"
            if fell >= DECADES
            else f"its gradient is {size:.1g} per weight (norm {late:.2g}), below the {EPSILON:g} that the optimizer adds"
        )
        advice = "Use --objective gp, which keeps the slope at 1 where a confident or clipped critic is flat"
        advice += "; or raise --clip." if config["objective"] == "clip" else "."
        return Finding("vanishing generator gradient", f"The generator has stopped learning: {how}.", advice, evidence)
    # compared with the second tenth: an initially flat critic, such as a clipped one, steepens at first without harm
    tenth = max(1, len(norms) // 10)
    before = float(np.median(norms[tenth : 2 * tenth]))
    rose = decades_between(before, late)
    if rose < DECADES:
        return None
    return Finding(
        "exploding generator gradient",
        f"The norm of the generator's gradient rose from {before:.2g} (median of steps {tenth + 1} to {2 * tenth}) to "
        f"{late:.2g} (of the last {num}), by {rose:.1f} factors of ten: the critic has become very steep.",
        "Raise --penalty, or lower the learning rates; with --objective clip lower --clip.",
        {**evidence, "first": before, "decades": rose},
    )


def slope_of_the_critic(config: dict[str, Any], records: Records) -> Finding | Undecided | None:
    """Whether the penalty keeps the critic's slope near 1 (`lp`: not far above)."""
    sided = OBJECTIVES[config["objective"]].penalty
    slopes = column(records, "slope")
    if not np.isfinite(slopes).any():
        return Undecided("penalty not biting", "no finite slope was recorded")
    late, num = at_last(slopes)
    if late <= STEEP and (sided == "one" or late >= FLAT):
        return None
    wanted = "at most 1" if sided == "one" else "near 1"
    return Finding(
        "penalty not biting",
        f"The critic's slope between real and generated samples is {late:.3g} (median of the last {num} steps); the "
        f"penalty, of weight {config['penalty']:g}, should keep it {wanted}. The gap then does not measure a distance.",
        "Raise --penalty (10 in the paper; 1 for points)."
        if late > STEEP
        else "Raise --critic_steps or --critic_learning_rate: the critic has not reached its slope yet.",
        {"slope": late, "penalty": config["penalty"]},
    )


def still_improving(records: Records) -> bool:
    """Whether the sliced distance to held-out samples still fell by a tenth over the last third of the validations."""
    values = column(
        [record["validation"] for record in records if isinstance(record.get("validation"), dict)], "sliced_2"
    )
    values = values[np.isfinite(values)]
    third = len(values) // 3
    return third > 0 and float(np.median(values[-third:])) < 0.9 * float(np.median(values[-2 * third : -third]))
