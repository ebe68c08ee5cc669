"""What the log of a run says about its health: steps skipped, signs, gradients, slopes."""

import math
from typing import Any

import numpy as np

from earthworks.wgan.findings import Finding, Undecided
from earthworks.wgan.objectives import OBJECTIVES

Records = list[dict[str, Any]]

FEWEST_STEPS = 100  # so that a tenth of the steps is a median that means something
SHARE = 0.1  # "at first" and "at last" are medians over this share of the steps
DECADES = 2.0  # a Wasserstein critic's generator gradient stays within one (Arjovsky et al. 2017, and our own curves)
EPSILON = 1e-8  # that Adam and RMSProp add to a gradient's size: one below it moves no weight
STEEP, FLAT = 2.0, 0.5  # slopes beyond which the gap is off by a factor of two; healthy runs lie at 1.0 to 1.3
CHANCE = 2 * math.log(2)  # -E log D(x) - E log(1 - D(G z)) of a discriminator that says 1/2 to everything


def column(records: Records, key: str) -> np.ndarray:
    """(steps,) float64; NaN where nothing was recorded or what was recorded was not finite."""
    return np.array([np.nan if record.get(key) is None else float(record[key]) for record in records])


def ends(values: np.ndarray) -> tuple[float, float, int]:
    """Medians of the first and of the last tenth of the finite values, and of how many each is."""
    values = values[np.isfinite(values)]
    num = max(1, round(SHARE * len(values)))
    return float(np.median(values[:num])), float(np.median(values[-num:])), num


def too_short(question: str, records: Records) -> Undecided | None:
    if len(records) >= FEWEST_STEPS:
        return None
    return Undecided(question, f"the run is too short, {len(records)} steps; at least {FEWEST_STEPS} are needed")


def skipped_steps(config: dict[str, Any], records: Records) -> Finding | None:
    """Updates that were not made because a loss or a gradient was not finite."""
    bad = [record["step"] for record in records if record.get("skipped") or record.get("loss") is None]
    if not bad:
        return None
    return Finding(
        "steps that were skipped",
        f"In {len(bad):,} of {len(records):,} steps the loss or its gradient was not a finite number, and updates were left "
        f"out; the first was step {bad[0]:,}, the last step {bad[-1]:,}.",
        "Lower --learning_rate and --critic_learning_rate (half, then a quarter), and use --precision fp32.",
        {"skipped": len(bad), "first": bad[0], "last": bad[-1]},
    )


def critic_sign(config: dict[str, Any], records: Records) -> Finding | None:
    """A Wasserstein critic's loss is minus its gap plus the penalty, to the last digits: with plus the gap, it is trained
    to be low on real samples."""
    if config["objective"] in ("minimax", "non-saturating"):
        return None
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
        f"The critic is trained to score real samples low: in {share:.0%} of the steps its loss is plus its gap where it "
        f"should be minus (at the last step gap {gap[known][-1]:.3g}, loss {loss[known][-1]:.3g}).",
        "The critic minimises E f(G z) - E f(x); exchange the two terms of its loss.",
        {"share": share, "gap": float(gap[known][-1]), "loss": float(loss[known][-1])},
    )


def below_chance(config: dict[str, Any], records: Records) -> Finding | Undecided | None:
    """A discriminator that knows nothing has loss 2 log 2; a worse one lags behind the generator."""
    if config["objective"] not in ("minimax", "non-saturating"):
        return None
    if short := too_short("critic under-trained", records):
        return short
    loss = column(records, "loss")
    _, late, num = ends(loss)
    if not late > CHANCE:
        return None
    return Finding(
        "critic under-trained",
        f"The discriminator's loss is {late:.3f} (median of the last {num} steps); one that answers 1/2 to everything has "
        f"{CHANCE:.3f}. It lags behind the generator and sends it in no useful direction.",
        "Raise --critic_steps or --critic_learning_rate.",
        {"loss": late, "chance": CHANCE},
    )


def generator_gradient(config: dict[str, Any], records: Records) -> Finding | Undecided | None:
    """Whether the norm of the generator's gradient fell or rose by decades, or is lost beside the optimizer's epsilon."""
    if short := too_short("generator's gradient", records):
        return short
    norms = column(records, "generator_gradient_norm")
    if not np.isfinite(norms).any():
        return Undecided("generator's gradient", "no finite norm of it was recorded")
    early, late, num = ends(norms)
    weights = config["generator_parameters"]
    size = late / math.sqrt(weights)
    decades = math.log10(max(late, 1e-45) / max(early, 1e-45))
    evidence = {"early": early, "late": late, "decades": decades, "steps": num}
    if decades <= -DECADES or size < EPSILON:
        fell = f"from {early:.2g} (median of the first {num} steps) to {late:.2g} (of the last {num})"
        why = (
            f"the norm of its gradient fell {fell}, by {-decades:.1f} factors of ten"
            if decades <= -DECADES
            else f"its gradient is {size:.1g} a weight (norm {late:.2g}), below the {EPSILON:g} that the optimizer adds to it"
        )
        advice = (
            "Raise --clip, or use --objective gp, which holds the critic's slope at 1."
            if config["objective"] == "clip"
            else "Use --objective gp: a critic that is not saturated keeps its slope."
        )
        return Finding("vanishing generator gradient", f"The generator has stopped learning: {why}.", advice, evidence)
    if decades >= DECADES:
        return Finding(
            "exploding generator gradient",
            f"The norm of the generator's gradient rose from {early:.2g} (median of the first {num} steps) to {late:.2g} (of "
            f"the last {num}), by {decades:.1f} factors of ten: the critic has become very steep.",
            "Raise --penalty, or lower the learning rates; with --objective clip lower --clip.",
            evidence,
        )
    return None


def slope_of_the_critic(config: dict[str, Any], records: Records) -> Finding | Undecided | None:
    """Whether the penalty holds the critic's slope near 1 (for `lp`: not far above)."""
    sided = OBJECTIVES[config["objective"]].penalty
    if sided is None:
        return None
    if short := too_short("penalty", records):
        return short
    slopes = column(records, "slope")
    if not np.isfinite(slopes).any():
        return Undecided("penalty", "no finite slope was recorded")
    _, late, num = ends(slopes)
    if late <= STEEP and (sided == "one" or late >= FLAT):
        return None
    wanted = "at most 1" if sided == "one" else "near 1"
    consequence = "far above" if late > STEEP else "far below"
    return Finding(
        "penalty not biting",
        f"The critic's slope between real and generated samples is {late:.3g} (median of the last {num} steps); the penalty, "
        f"of weight {config['penalty']:g}, should hold it {wanted}. Its gap is {consequence} what a slope of 1 would give.",
        "Raise --penalty (10 in the paper; 1 for points)."
        if late > STEEP
        else "Raise --critic_steps or --critic_learning_rate.",
        {"slope": late, "penalty": config["penalty"]},
    )
