"""Guard against harmful updates: skips and counts them, and ends the run with an error when they persist."""

import math
from collections import deque

import torch

from earthworks.runs import EarthworksError

WINDOW = 128  # losses that a new one is compared with
SPIKE = 8.0  # standard deviations above their mean
PATIENCE = 10  # skipped steps in a row before the run is given up


class Guard:
    """`guard.admits(loss, norm)` decides whether to make an update.

    It refuses when the loss or the gradient norm is not finite, or when the loss is more than `spike` (8) standard
    deviations above the mean of the last 128 admitted ones. After 10 consecutive refusals it raises EarthworksError (exit
    code 1).
    """

    def __init__(self, spike: float = SPIKE) -> None:
        self.spike = spike
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.skipped = 0
        self.in_a_row = 0

    def admits(self, loss: float, norm: float) -> bool:
        if math.isfinite(loss) and math.isfinite(norm) and not self.spikes(loss):
            self.losses.append(loss)
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            raise EarthworksError(
                f"{PATIENCE} consecutive steps had a non-finite or exploding loss or gradient "
                f"(loss {loss:.4g}, gradient norm {norm:.4g}): start a new run with a lower --learning_rate or --clip, "
                "optionally from the weights of this one with --init; its last checkpoint is intact",
                exit_code=1,
            )
        return False

    def spikes(self, loss: float) -> bool:
        if len(self.losses) < WINDOW:
            return False
        values = torch.tensor(self.losses, dtype=torch.float64)
        return loss > float(values.mean() + self.spike * values.std().clamp(min=1e-3 * values.mean().abs()))

    def state(self) -> dict[str, object]:
        return {"losses": list(self.losses), "skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state(self, state: dict[str, object]) -> None:
        self.losses = deque(state["losses"], maxlen=WINDOW)  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.skipped = int(state["skipped"])  # pyright: ignore[reportArgumentType]
        self.in_a_row = int(state["in_a_row"])  # pyright: ignore[reportArgumentType]
