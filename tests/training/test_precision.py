import pytest
import torch

from earthworks.runs import EarthworksError
from earthworks.training import precision
from earthworks.training.precision import autocast, choose_device, choose_precision, matmul_ceiling

CPU = torch.device("cpu")


@pytest.mark.parametrize(("bf16", "chosen"), [(1.29, "fp32"), (1.31, "bf16"), (0.3, "fp32")])
def test_auto_takes_bf16_where_its_products_are_clearly_faster(monkeypatch, bf16, chosen):
    monkeypatch.setattr(precision, "matmul_ceiling", lambda _, dtype: bf16 if dtype == torch.bfloat16 else 1.0)
    assert choose_precision("auto", CPU) == chosen
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"


def test_an_unknown_precision_or_device_is_one_sentence():
    with pytest.raises(EarthworksError, match="precision is 'fp64'; it must be one of auto, fp32, bf16"):
        choose_precision("fp64", CPU)
    for name in ("abacus", "cuda:99"):
        with pytest.raises(EarthworksError, match=f"device '{name}' cannot be used here: [^\n]*$"):
            choose_device(name)
    assert choose_device("cpu") == CPU


def test_bf16_products_are_rounded_to_eight_bits_and_fp32_products_are_not():
    a = torch.tensor([[1 + 2**-10]])  # the next number above 1 in bf16 is 1 + 2^-7
    with autocast("bf16", CPU):
        assert (a @ a).item() == 1
    with autocast("fp32", CPU):
        assert (a @ a).item() == (1 + 2**-10) ** 2


def test_the_ceiling_is_the_best_of_a_few_products_and_moves_no_random_number(monkeypatch):
    times = iter([0.0, *(t for i in range(8) for t in (i, i + (0.25 if i == 5 else 0.5), 0.01 * i))])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(times))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert matmul_ceiling.__wrapped__(CPU, torch.float32, 8) == 2 * 8**3 / 0.25
    assert torch.equal(torch.get_rng_state(), before)
