"""A Gopher in training: update, validation, sample, and checkpoint contents."""

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthworks.corpus import PackedTokens
from earthworks.gopher.cost import training_flops
from earthworks.gopher.evaluating import Scorable, up_to
from earthworks.gopher.generation import generate
from earthworks.gopher.loading import load_weights
from earthworks.gopher.model import Gopher
from earthworks.gopher.pretraining.settings import Settled
from earthworks.gopher.scoring import score_documents
from earthworks.runs import EarthworksError, RunFolder, write_bytes
from earthworks.runs.changed_settings import settings_written
from earthworks.runs.progress import note
from earthworks.training.command_settings import values
from earthworks.training.guard import Guard
from earthworks.training.optimizer import Optimizer
from earthworks.training.precision import autocast, matmul_ceiling, product_dtype, release_memory, synchronize
from earthworks.training.schedule import BatchRamp, Schedule
from earthworks.training.weights import weights_for

SAMPLE_TOKENS = 120


class Pretraining:
    """A Gopher in training: the task that the loop runs."""

    def __init__(self, model: Gopher, data: PackedTokens, run: RunFolder, settings: Settled, device: torch.device):
        self.model, self.data, self.run, self.settings, self.device = model, data, run, settings, device
        self.optimizer = make_optimizer(model, settings, device)
        self.schedule = make_schedule(settings)
        self.ramp = BatchRamp(batch=settings.batch, first=settings.first_batch, ramp_step=settings.ramp_step)
        self.guard = Guard()
        self.micro_batch = settings.micro_batch  # may become smaller
        self.tokens_seen = 0
        self.ceiling = matmul_ceiling(device, product_dtype(settings.precision))
        self.flops = training_flops(model.config, settings.context)
        self.held_out = held_out(data, settings.validation_tokens)

    def update(self, step: int) -> dict[str, Any]:
        started = time.perf_counter()
        settings = self.settings
        batch, context = self.ramp.size(step), settings.context
        rows = self.data.windows(settings.seed, self.ramp.before(step), batch, context, settings.sampling)
        loss = self.backward(torch.from_numpy(rows).to(self.device))
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        record = {"loss": float(loss), "gradient_norm": float(norm)}
        if self.guard.admits(record["loss"], record["gradient_norm"]):
            if record["gradient_norm"] + 1e-6 > settings.clip:  # otherwise clipping would multiply by 1
                torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), settings.clip, norm)
            self.optimizer.step(self.schedule.factor(step))
        else:
            self.optimizer.zero_grad()
            record["skipped"] = True
        synchronize(self.device)
        self.tokens_seen += batch * context
        rate = batch * context / (time.perf_counter() - started)
        return {
            **record,
            "learning_rate": self.settings.learning_rate * self.schedule.factor(step),
            "tokens": batch * context,
            "tokens_seen": self.tokens_seen,
            "epoch": self.tokens_seen / self.data.train_tokens,
            "tokens_per_second": rate,
            "ceiling_share": rate * self.flops / self.ceiling,
        }

    def backward(self, tokens: Tensor) -> Tensor:
        """Mean loss of a batch, with its gradients accumulated in the parameters; in smaller parts where memory is short.

        Gradients add up over microbatches, so the batch size is unchanged. The microbatch size that fits is kept and
        saved, because the order of a sum decides its last bits. Raises EarthworksError when one sequence does not fit.
        """
        while True:
            try:
                return self.accumulate(tokens)
            except torch.OutOfMemoryError:
                tried = min(self.micro_batch, len(tokens))
            self.optimizer.zero_grad()  # outside the handler, whose traceback would keep the activations alive
            if tried == 1:
                raise EarthworksError(
                    f"{self.device} is out of memory with one sequence of {tokens.shape[1] - 1} tokens at a time: start "
                    "with a smaller --size or --context, or on another --device",
                    exit_code=1,
                )
            self.micro_batch = (tried + 1) // 2
            release_memory(self.device)
            note(
                f"notice: {self.device} is out of memory with {tried} sequences at a time: continuing with "
                f"{self.micro_batch}; the batch stays {len(tokens)}"
            )

    def accumulate(self, tokens: Tensor) -> Tensor:
        """`backward` in microbatches of one size; under `bf16` the weights are cast once for all of them."""
        loss = torch.zeros((), device=self.device)
        with autocast(self.settings.precision, self.device):
            for part in tokens.split(self.micro_batch):
                part_loss = self.model.loss(part[:, :-1], part[:, 1:]) * (len(part) / len(tokens))
                with torch.autocast(self.device.type, enabled=False):
                    part_loss.backward()
                loss += part_loss.detach()
        return loss

    def validate(self) -> dict[str, Any] | None:
        if not self.held_out:
            return None
        subsets = {name: self.measure(documents) for name, documents in self.held_out.items()}
        total = {key: sum(part[key] for part in subsets.values()) for key in ("nats", "tokens", "bytes")}
        bits = total["nats"] / total["bytes"] / math.log(2)
        return {
            "score": bits,
            "bits_per_byte": bits,
            "nats_per_token": total["nats"] / total["tokens"],
            "subsets": {
                name: {"bits_per_byte": part["nats"] / part["bytes"] / math.log(2)} for name, part in subsets.items()
            },
        }

    def measure(self, documents: list[Scorable]) -> dict[str, float]:
        with autocast(self.settings.precision, self.device):
            scored = score_documents(
                self.model,
                documents,
                end_of_document=self.data.tokenizer.end_of_document,
                context=self.settings.context,
                windows="disjoint",
            )
        return {
            "nats": float(sum(document.nats.sum(dtype=np.float64) for document in scored)),
            "tokens": sum(len(document.nats) for document in scored),
            "bytes": sum(document.num_bytes for document in scored),
        }

    def sample(self, step: int) -> str:
        config = self.model.config
        length = min(SAMPLE_TOKENS, config.context) if config.positions == "absolute" else SAMPLE_TOKENS
        drawing: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "seed": step, "precision": "fp32"}
        try:
            text = generate(self.model, self.data.tokenizer, "", max_tokens=length, **drawing)[0].text
        except EarthworksError as error:  # the model diverged; its run is saved all the same
            text = f"[no sample: {error}]"
        self.run.samples.mkdir(exist_ok=True)
        write_bytes(self.run.samples / f"step-{step}.txt", text.encode())
        return " ".join(text.split())[:60]

    def describe(self, record: dict[str, Any]) -> str:
        parts = [
            f"loss {record['loss']:.3f}",
            f"{record['tokens_per_second']:,.0f} tokens/s",
            f"{record['ceiling_share']:.0%} of ceiling",
        ]
        if "validation" in record:
            self.last_bits = record["validation"]["bits_per_byte"]
        if hasattr(self, "last_bits"):
            parts.append(f"held out {self.last_bits:.3f} bits per byte")
        return " · ".join(parts)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"model": dict(self.model.state_dict()), "optimizer": self.optimizer.state()}

    def state(self) -> dict[str, Any]:
        return {
            "tokens_seen": self.tokens_seen,
            "micro_batch": self.micro_batch,
            "guard": self.guard.state(),
            "model": self.model.config.to_dict(),
            "tokenizer": self.data.tokenizer.digest,
            "settings": settings_written(values(self.settings)) | {"parameters": self.model.config.num_parameters()},
        }

    def restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        if state["tokenizer"] != self.data.tokenizer.digest:
            raise EarthworksError(f"the checkpoint was trained with another tokenizer than that of {self.data.path}")
        load_weights(self.model, tensors["model"])
        self.optimizer.load_state(tensors["optimizer"])
        self.guard.load_state(state["guard"])
        self.tokens_seen = state["tokens_seen"]
        self.micro_batch = state.get("micro_batch", self.micro_batch)  # not yet in checkpoints before 2026-11-23


def make_optimizer(model: Gopher, settings: Settled, device: torch.device) -> Optimizer:
    """Optimizer of a float32 model; converts its parameters to bf16 if the precision requires it."""
    return Optimizer(
        settings.optimizer,
        model.named_parameters(),
        learning_rate=settings.learning_rate,
        embedding_rate=settings.embedding_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        weights=weights_for(settings.precision, settings.seed, device),
    )


def make_schedule(settings: Settled) -> Schedule:
    return Schedule(
        shape=settings.schedule,
        max_steps=settings.horizon,
        peak=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        final_share=settings.final_share,
    )


def held_out(data: PackedTokens, max_tokens: int) -> dict[str, list[Scorable]]:
    """The first held-out documents of each subset, up to `max_tokens` tokens in all."""
    names = [subset.name for subset in data.subsets if subset.validation.documents]
    return {
        name: up_to(
            ((tokens[:-1], size, words) for tokens, size, words in data.validation_documents(name)),
            max_tokens // len(names),
            data.tokenizer,
        )
        for name in names
    }
