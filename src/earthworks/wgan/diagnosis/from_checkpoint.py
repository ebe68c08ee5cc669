"""Health checks on a run's last checkpoint: sign, critic headroom, overfitting, diversity."""

import math
import time

import torch
from torch import Tensor

from earthworks.transport.lipschitz import gradient_norms, interpolate
from earthworks.wgan.data.batches import noise_generator
from earthworks.wgan.diagnosis.findings import Finding, Undecided
from earthworks.wgan.task import Adversarial

SAMPLES = 1024  # of each kind, at most
FEWEST_SAMPLES = 20  # for a meaningful standard error
ERRORS = 4.0  # standard errors that a difference must exceed
MORE_STEPS, MORE_SECONDS = 200, 20.0  # most extra training of the critic, with the generator frozen
HEADROOM = 2.0  # a gap this many times the run's own means that the critic lags
MEMORY = 0.25  # share of the gap on training samples that is missing on held-out ones
NEAR = 0.1  # two samples are near when closer than this quantile of the distances between real ones
CROWDED = 3.0  # generated samples are near each other this many times as often as real ones
LOST = 0.1  # share of its expected samples below which a mode is lost


def standard_error(scores: Tensor) -> float:
    return float(scores.double().std() / math.sqrt(len(scores)))


@torch.no_grad()
def scores_of(task: Adversarial, samples: Tensor) -> Tensor:
    """(n,) raw scores of samples of one kind, in passes of the run's batch size as in training."""
    return torch.cat([task.critic(part).float() for part in samples.split(SAMPLES)])


@torch.no_grad()
def generated(task: Adversarial, num: int) -> Tensor:
    """Samples of the generator itself, which the critic was trained against, not of its average."""
    random = noise_generator(task.settings.seed, 0, task.device, purpose=5)
    return task.generator(task.noise(num, random))


def generator_sign(task: Adversarial, recorded: float | None) -> Finding | Undecided | None:
    """Whether a step down the generator's loss raises the mean score of its samples, to first order: the cosine of minus
    the gradient of its loss and the gradient of mean f(G z). Also whether the loss `recorded` at the checkpoint's step
    has the sign of the checkpoint's own loss."""
    random = noise_generator(task.settings.seed, 0, task.device, purpose=5)
    weights = list(task.generator.parameters())
    task.critic.requires_grad_(False)
    scores = task.critic(task.generator(task.noise(SAMPLES, random))).float()
    loss = task.objective.generator(scores)
    down = torch.autograd.grad(-loss, weights, retain_graph=True)
    up = torch.autograd.grad(scores.mean(), weights)
    task.critic.requires_grad_(True)
    a, b = (torch.cat([gradient.flatten() for gradient in each]).double() for each in (down, up))
    size = float(a.norm() * b.norm())
    now, error = (
        float(loss.detach()),
        standard_error(scores.detach()) * math.sqrt(SAMPLES / task.settings.generator_batch),
    )
    if size > 0 and float(a @ b) < 0:
        cosine = float(a @ b) / size
        how = f"the cosine between its step and the direction of rising scores is {cosine:.2f}"
        evidence = {"cosine": cosine}
    elif recorded is not None and abs(recorded - now) - abs(recorded + now) > 2 * ERRORS * error:
        how = f"the loss recorded at the last checkpoint is {recorded:.3g}, but its weights give {now:.3g}"
        evidence = {"recorded": recorded, "expected": now}
    else:
        return None
    return Finding(
        "generator's sign reversed",
        f"The generator is trained to lower the critic's score of its samples instead of raising it: {how}.",
        "The generator should minimise -E f(G z); flip the sign of its loss.",
        evidence,
    )


def critic_headroom(task: Adversarial) -> Finding | Undecided | None:
    """Increase of the held-out gap, per unit of slope, when the critic alone is trained for more steps. (Only for
    Wasserstein critics: the scores of a discriminator have no scale, and further steps always raise its gap.)

    Changes the critic of `task`, which must have a new optimizer with a rate no lower than the generator's.
    """
    real = task.batches.held_out(SAMPLES)
    if len(real) < FEWEST_SAMPLES:
        return Undecided(
            "critic under-trained", f"only {len(real)} samples are held out; train with a larger --validation"
        )
    fake = generated(task, len(real))

    def gap() -> tuple[float, float]:
        on_real, on_fake = scores_of(task, real), scores_of(task, fake)
        slope = 1.0
        if not task.settings.critic_batch_norm:
            random = noise_generator(task.settings.seed, 0, task.device, purpose=5)
            slope = max(1.0, float(gradient_norms(task.critic, interpolate(real, fake, generator=random)).mean()))
        error = math.hypot(standard_error(on_real), standard_error(on_fake))
        return float(on_real.mean() - on_fake.mean()) / slope, error / slope

    before, error_before = gap()
    random = noise_generator(task.settings.seed, 0, task.device, purpose=6)
    started, steps = time.perf_counter(), 0
    while steps < MORE_STEPS and time.perf_counter() - started < MORE_SECONDS:
        task.critic_step(steps, random, 1.0)
        steps += 1
    after, error_after = gap()
    error = math.hypot(error_before, error_after)
    negative = before < -ERRORS * error_before
    if not after - before > ERRORS * error or not (negative or after > HEADROOM * before):
        return None
    found = "is negative, worse than that of a constant critic" if negative else "is far below what it could be"
    return Finding(
        "critic under-trained",
        f"The critic's gap on held-out samples {found}: it is {before:.3g}, and {steps} further steps of the critic, "
        f"with the generator frozen, raise it to {after:.3g} (both divided by the critic's slope where that is above "
        f"1; standard error of the difference {error:.2g}). The generator follows a critic that has not learned how its "
        "samples differ.",
        "Raise --critic_steps (5 in the papers) or --critic_learning_rate.",
        {"gap": before, "gap_after": after, "error": error, "steps": steps},
    )


def critic_memory(task: Adversarial) -> Finding | Undecided | None:
    """Whether the critic scores its training samples higher than others of the same distribution."""
    train, held_out = task.batches.training(SAMPLES), task.batches.held_out(SAMPLES)
    fewest = min(len(train), len(held_out))
    if fewest < FEWEST_SAMPLES:
        return Undecided(
            "critic overfitting", f"one side of the split has only {fewest} samples; train with another --validation"
        )
    on_train, on_held_out, on_fake = (scores_of(task, x) for x in (train, held_out, generated(task, SAMPLES)))
    gap, held_out_gap = (float(scores.mean() - on_fake.mean()) for scores in (on_train, on_held_out))
    difference, error = gap - held_out_gap, math.hypot(standard_error(on_train), standard_error(on_held_out))
    if difference <= ERRORS * error or difference <= MEMORY * gap:
        return None
    return Finding(
        "critic overfitting",
        f"The critic has memorised its training samples: its gap is {gap:.3g} on {len(train):,} of them and "
        f"{held_out_gap:.3g} on {len(held_out):,} held-out ones, a difference of {difference:.3g} with standard error "
        f"{error:.2g}.",
        "Use more data, a smaller critic (--width), fewer steps, or the checkpoint `best`.",
        {"gap_train": gap, "gap_held_out": held_out_gap, "difference": difference, "error": error},
    )


def lost_modes(task: Adversarial, improving: bool) -> Finding | Undecided | None:
    """Whether generated samples are less diverse than real ones: by the centres of a mixture, else by how often two of
    them are near each other. Undecided while a run is still `improving`."""
    real = task.batches.held_out(SAMPLES)
    real = real if len(real) >= FEWEST_SAMPLES else task.batches.training(SAMPLES)
    if len(real) < FEWEST_SAMPLES:
        return Undecided("collapsed modes", f"{len(real)} real samples are too few for a comparison")
    fake = task.draw(SAMPLES, task.settings.seed)
    if task.data.centres is not None:
        centres = task.data.centres.to(fake)
        counts = torch.bincount(torch.cdist(fake, centres).argmin(1), minlength=len(centres))
        lost = int((counts < LOST * len(fake) / len(centres)).sum())
        if not lost:
            return None
        if improving:
            return Undecided(
                "collapsed modes",
                f"{lost} of {len(centres)} modes have no samples yet, but the distance is still falling",
            )
        return Finding(
            "collapsed modes",
            f"Modes lost: {lost} of {len(centres)}. Each of them has fewer than a tenth of a fair share of the "
            f"{len(fake):,} generated samples, which is {len(fake) / len(centres):.0f} (the fullest mode has "
            f"{int(counts.max())}).",
            "Use --objective gp, train longer, or raise --width and --batch.",
            {"lost": lost, "modes": len(centres), "samples": len(fake)},
        )
    radius = float(torch.pdist(real.flatten(1)).quantile(NEAR))
    near = (torch.cdist(fake.flatten(1), fake.flatten(1)) < radius).double().fill_diagonal_(0).sum(1) / (len(fake) - 1)
    share, error = float(near.mean()), 2 * standard_error(near)
    evidence = {"near": share, "near_real": NEAR, "error": error, "radius": radius, "kinds": 1 / max(share, 1e-9)}
    if share - ERRORS * error <= CROWDED * NEAR:
        return None
    if improving:
        return Undecided(
            "collapsed modes",
            f"the samples are very similar ({share:.0%} of pairs are near), but the distance is still falling",
        )
    return Finding(
        "collapsed modes",
        f"Generated samples are too similar: two of them are near each other in {share:.0%} of all pairs (standard error "
        f"{error:.1%}), two real ones in {NEAR:.0%} (near: within {radius:.3g}). They are as varied as {1 / share:.1f} "
        f"equally frequent kinds, real ones as {1 / NEAR:.0f}.",
        "Use --objective gp, train longer, or raise --width and --batch.",
        evidence,
    )
