"""Adversarial training task: updates, validation, samples and checkpoint state of a generator and its critic."""

import copy
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from earthworks.runs import EarthworksError, RunFolder
from earthworks.training.command_settings import values
from earthworks.training.distributed import average_gradients, rank, world_size
from earthworks.training.guard import Guard
from earthworks.training.optimizer import Optimizer
from earthworks.training.precision import autocast, synchronize
from earthworks.training.resumption import settings_written
from earthworks.training.schedule import Schedule
from earthworks.transport.lipschitz import clip_weights, gradient_norms, interpolate, penalize
from earthworks.wgan.data.batches import Batches, noise_generator
from earthworks.wgan.data.datasets import Dataset
from earthworks.wgan.monitoring import quick_measures
from earthworks.wgan.objectives import OBJECTIVES
from earthworks.wgan.sample_grid import write_picture
from earthworks.wgan.sampling import draw
from earthworks.wgan.settings import Settled

GAP_SAMPLES = 1024  # of each kind, for the critic's gap at a validation
SHOWN = 64  # samples per picture, always on the same noise
MEASURED = 2048  # generated samples per validation
FINAL_SHARE = 0.01  # of the rates, at and after the horizon: an extended run still learns
AVERAGE_WARMUP = 10  # the average after t steps covers about the last (10 + t) / 10


class Adversarial:
    """Training task of a generator and its critic. One step is `critic_steps` updates of the critic and one of
    the generator (Gulrajani et al. 2017, Algorithm 1)."""

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        data: Dataset,
        run: RunFolder,
        settings: Settled,
        device: torch.device,
    ):
        layout = torch.channels_last if settings.channels_last and len(data.shape) == 3 else torch.preserve_format
        self.generator = generator.to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.critic = critic.to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.data, self.run, self.settings, self.device = data, run, settings, device
        self.objective = OBJECTIVES[settings.objective]
        self.batches = Batches(
            data, device, batch=settings.batch, seed=settings.seed, dequantize=bool(settings.dequantize)
        )
        self.critic_optimizer = self.make_optimizer(self.critic, settings.critic_learning_rate)
        self.generator_optimizer = self.make_optimizer(self.generator, settings.learning_rate)
        self.schedule = Schedule(
            shape="linear",
            max_steps=settings.horizon,
            peak=1.0,
            warmup_steps=0,
            final_share=FINAL_SHARE,
            hold=settings.hold,
        )
        # a critic's loss has no normal level; two guards, so that neither network masks the other's consecutive bad steps
        self.critic_guard, self.generator_guard = Guard(spike=math.inf), Guard(spike=math.inf)
        self.generate = torch.compile(self.generator) if settings.compile else self.generator
        self.images_seen = 0

    def make_optimizer(self, module: nn.Module, learning_rate: float) -> Optimizer:
        settings = self.settings
        betas = (settings.beta1, settings.beta2)
        return Optimizer(settings.optimizer, module.named_parameters(), learning_rate=learning_rate, betas=betas)

    def update(self, step: int) -> dict[str, Any]:
        started = time.perf_counter()
        random = noise_generator(self.settings.seed, step, self.device, rank=rank())
        factor = self.schedule.factor(step)
        record: dict[str, Any] = {}
        skipped = self.skipped
        for number in range(self.settings.critic_steps):
            record = self.critic_step(step * self.settings.critic_steps + number, random, factor)
        record |= self.generator_step(random, factor)
        if self.skipped > skipped:
            record["skipped"] = self.skipped - skipped
        self.update_average(step)
        synchronize(self.device)
        images = self.settings.critic_steps * self.settings.batch * world_size()
        self.images_seen += images
        rate = images / (time.perf_counter() - started)
        shares = {"learning_rate": self.settings.learning_rate * factor, "images": images}
        return {**record, **shares, "images_seen": self.images_seen, "images_per_second": rate}

    @property
    def skipped(self) -> int:
        """Number of skipped updates of either network."""
        return self.critic_guard.skipped + self.generator_guard.skipped

    def critic_step(self, number: int, random: torch.Generator, factor: float) -> dict[str, Any]:
        """One update of the critic: real and generated samples in one pass, no graph through the generator."""
        real = self.batches.batch(number, random)
        with autocast(self.settings.precision, self.device):
            with torch.no_grad():
                fake = self.generate(self.noise(len(real), random))
            fake = fake.to(real.dtype)
            on_real, on_fake = self.scores(real, fake)
            loss = self.objective.critic(on_real, on_fake)
            record: dict[str, Any] = {}
            if self.objective.penalty:
                between = interpolate(real, fake, generator=random)
                slopes = gradient_norms(self.critic, between, create_graph=True)
                penalty = penalize(slopes, self.objective.penalty)
                assert self.settings.penalty is not None
                loss = loss + self.settings.penalty * penalty
                record = {"penalty": float(penalty.detach()), "slope": float(slopes.detach().mean())}
        loss.backward()
        average_gradients(self.critic)
        norm = gradient_norm(self.critic)
        record = {"loss": float(loss.detach()), "gap": float((on_real.mean() - on_fake.mean()).detach()), **record}
        if self.critic_guard.admits(record["loss"], norm):
            self.critic_optimizer.step(factor)
            if self.objective.clips:
                assert self.settings.clip is not None
                clip_weights(self.critic, self.settings.clip)
        else:
            self.critic_optimizer.zero_grad()
        return {**record, "critic_gradient_norm": norm}

    def scores(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Raw scores of both, in one pass; in two where batch normalization would mix them, because in the generator's step
        the critic sees only generated samples (as in the code of Arjovsky et al. 2017)."""
        if self.settings.critic_batch_norm:
            return self.critic(real).float(), self.critic(fake).float()
        on_real, on_fake = self.critic(torch.cat([real, fake])).float().split(len(real))
        return on_real, on_fake

    def generator_step(self, random: torch.Generator, factor: float) -> dict[str, Any]:
        """One update of the generator, without gradients of the critic's weights."""
        self.critic.requires_grad_(False)
        with autocast(self.settings.precision, self.device):
            fake = self.generate(self.noise(self.settings.generator_batch, random))
            loss = self.objective.generator(self.critic(fake).float())
        loss.backward()
        self.critic.requires_grad_(True)
        average_gradients(self.generator)
        norm = gradient_norm(self.generator)
        value = float(loss.detach())
        if self.generator_guard.admits(value, norm):
            self.generator_optimizer.step(factor)
        else:
            self.generator_optimizer.zero_grad()
        return {"generator_loss": value, "generator_gradient_norm": norm}

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Update the exponential moving average of the generator's weights, from which samples are drawn."""
        decay = min(self.settings.average, (1 + step) / (AVERAGE_WARMUP + step))
        averages, weights = list(self.average.parameters()), list(self.generator.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.average.buffers(), self.generator.buffers()):
            average.copy_(buffer)

    def noise(self, num: int, random: torch.Generator) -> Tensor:
        return torch.randn(num, self.settings.noise, device=self.device, generator=random)

    def draw(self, num: int, seed: int) -> Tensor:
        """Samples of the averaged generator, on the scale of the networks."""
        return draw(self.average.eval(), num, seed=seed, noise=self.settings.noise).to(self.device)

    def validate(self) -> dict[str, Any] | None:
        """The critic's gap on training and on held-out samples, against the same generated ones; its slope between them; and
        critic-free measures of the averaged generator."""
        seed = self.settings.seed
        fake = self.draw(MEASURED, seed)
        held_out = self.batches.held_out(MEASURED)
        num = min(GAP_SAMPLES, len(held_out), len(self.data.train))
        if not torch.isfinite(fake).all():
            raise EarthworksError(
                "the generator produces non-finite values: training has diverged; start a new run with a lower "
                f"--learning_rate (the last checkpoint of {self.run.path} is intact)",
                exit_code=1,
            )
        with torch.no_grad():
            on_fake = self.critic(fake[:num]).float().mean()
            gap_train = float(self.critic(self.batches.training(num)).float().mean() - on_fake)
            gap_held_out = float(self.critic(held_out[:num]).float().mean() - on_fake)
        random = noise_generator(seed, 0, self.device, purpose=2)
        slopes = torch.ones(1)
        if not self.settings.critic_batch_norm:
            slopes = gradient_norms(self.critic, interpolate(held_out[:num], fake[:num], generator=random))
        measures = quick_measures(fake, held_out, self.data)
        return {**measures, "gap_train": gap_train, "gap_held_out": gap_held_out, "slope": float(slopes.mean())}

    def sample(self, step: int) -> str:
        num = SHOWN if len(self.data.shape) == 3 else MEASURED
        return write_picture(self.run, step, self.draw(num, self.settings.seed), self.data)

    def describe(self, record: dict[str, Any]) -> str:
        parts = [f"gap {record['gap']:.3f}"]
        if "slope" in record:
            parts.append(f"slope {record['slope']:.2f}")
        unit = "images" if len(self.data.shape) == 3 else "points"
        parts.append(f"{record['images_per_second']:,.0f} {unit}/s")
        if "validation" in record:
            validation = record["validation"]
            shown = {"held-out gap": validation["gap_held_out"], **validation["shown"]}
            self.measured = " · ".join(f"{name} {value:.3g}" for name, value in shown.items())
        if hasattr(self, "measured"):
            parts.append(self.measured)
        return " · ".join(parts)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {
            "generator": dict(self.generator.state_dict()),
            "critic": dict(self.critic.state_dict()),
            "average": dict(self.average.state_dict()),
            "generator_optimizer": self.generator_optimizer.state(),
            "critic_optimizer": self.critic_optimizer.state(),
        }

    def state(self) -> dict[str, Any]:
        guards = {"critic_guard": self.critic_guard.state(), "generator_guard": self.generator_guard.state()}
        parameters = sum(each.numel() for network in (self.generator, self.critic) for each in network.parameters())
        settings = settings_written(values(self.settings)) | {
            "parameters": parameters,
            "shape": list(self.data.shape),
            "data_digest": self.data.digest,
            "critic_batch_norm": self.settings.critic_batch_norm,
        }
        return {"images_seen": self.images_seen, "settings": settings, **guards}

    def restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        self.load_networks(tensors)
        self.generator_optimizer.load_state(tensors["generator_optimizer"])
        self.critic_optimizer.load_state(tensors["critic_optimizer"])
        self.critic_guard.load_state(state["critic_guard"])
        self.generator_guard.load_state(state["generator_guard"])
        self.images_seen = state["images_seen"]

    def load_networks(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Load the weights of a checkpoint. Raises EarthworksError when they belong to other networks."""
        try:
            for name in ("generator", "critic", "average"):
                getattr(self, name).load_state_dict(tensors[name])
        except (RuntimeError, KeyError):
            raise EarthworksError(
                f"the checkpoint's weights do not fit the networks in {self.run.config_file}: one of them was altered"
            ) from None


def gradient_norm(module: nn.Module) -> float:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.stack(torch._foreach_norm(gradients)).norm())
