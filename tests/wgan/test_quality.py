import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from earthworks.runs import EarthworksError, RunFolder
from earthworks.statistics import wilson_interval
from earthworks.wgan.data.datasets import load_dataset
from earthworks.wgan.measures.evaluation import Samples, memorisation
from earthworks.wgan.measures.neighbours import nearest, nearest_training, precision_recall_density_coverage
from earthworks.wgan.measures.quality import kernel_distance, label_coverage, mode_coverage


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grid() -> tuple[torch.Tensor, float]:
    """The 25 Gaussians of the WGAN-GP paper."""
    steps = torch.arange(-4, 5, 2, dtype=torch.float64)
    return torch.cartesian_prod(steps, steps) / 2.828, 0.05 / 2.828


# Kernel distance


def test_the_kernel_distance_of_two_and_two_points_by_hand():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    # k = (x . y / 2 + 1)^3: within x: 1; within y: 1; across: 1.5^3, 1, 2^3, 1
    expected = 1 + 1 - 2 * (1.5**3 + 1 + 2**3 + 1) / 4
    found = kernel_distance(x, y)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert math.isnan(found.interval[0])  # one part says nothing about its error


def test_equal_distributions_are_at_zero_on_average_and_held_by_19_intervals_of_20():
    values, held = [], 0
    for seed in range(200):
        found = kernel_distance(cloud(60, 3, 2 * seed), cloud(60, 3, 2 * seed + 1))
        values.append(found.value)
        held += found.interval[0] <= 0 <= found.interval[1]
    error = np.std(values) / math.sqrt(200)
    assert abs(np.mean(values)) < 3 * error  # the biased estimate would be 20 errors above
    assert 0.90 <= held / 200 <= 0.99
    assert 0.3 < np.mean(np.array(values) < 0) < 0.8


def test_the_kernel_distance_of_shifted_gaussians_is_the_integral():
    # d = 1, N(0, 1) and N(m, 1): E (x y + 1)^3 = 1 + 3 E[x]E[y] + 3 E[x^2]E[y^2] + E[x^3]E[y^3]
    m = 0.7
    first, second = (0.0, 1.0, 0.0), (m, 1 + m * m, 3 * m + m**3)

    def kernel(one: tuple[float, ...], other: tuple[float, ...]) -> float:
        return 1 + sum(c * a * b for c, a, b in zip((3, 3, 1), one, other))

    truth = kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)
    found = kernel_distance(cloud(20_000, 1), cloud(20_000, 1, seed=1) + m)
    assert found.interval[0] < truth < found.interval[1]
    assert found.value == pytest.approx(truth, rel=0.1)
    assert found.details["parts"] == 20


# Modes


def test_a_perfect_grid_scores_its_ceiling_and_floor():
    centres, std = grid()
    which = torch.randint(25, (20_000,), generator=torch.Generator().manual_seed(0))
    found = mode_coverage(centres[which] + std * cloud(20_000, 2), centres, std)
    quality = found["high_quality"]
    assert found["modes"].value == 25
    assert quality.details["ceiling"] == pytest.approx(1 - math.exp(-4.5), abs=1e-12)  # 98.89 %
    assert quality.value == pytest.approx(quality.details["ceiling"], abs=0.0023)  # three standard errors
    assert quality.interval[0] < quality.details["ceiling"] < quality.interval[1]
    assert found["reverse_kl"].value == pytest.approx(24 / 40_000, rel=0.9)
    low, high = found["reverse_kl"].interval
    assert low <= found["reverse_kl"].value <= high < 0.002


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_the_ceiling_is_the_share_of_a_gaussian_within_three_deviations(d):
    found = mode_coverage(torch.zeros(1, d), torch.zeros(1, d), 1.0)
    assert found["high_quality"].details["ceiling"] == pytest.approx(chi2.cdf(9, d), abs=1e-12)


def test_three_deviations_are_the_edge():
    samples = torch.tensor([[2.999, 0.0], [3.001, 0.0], [100.0, 2.9], [50.0, 0.0]])
    found = mode_coverage(samples, torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), 1.0)
    assert found["modes"].value == 2
    assert found["modes"].details == {"of": 3, "counts": [1, 1, 0]}
    assert found["high_quality"].value == 0.5
    assert found["reverse_kl"].value == pytest.approx(math.log(3 / 2))


def test_reverse_kl_by_hand_and_collapse_to_one_mode_is_log_k():
    labels = torch.tensor([0] * 6 + [1] * 2)
    expected = 0.75 * math.log(3) + 0.25 * math.log(1)  # KL((3/4, 1/4, 0, 0) | uniform)
    assert label_coverage(labels, 4)["reverse_kl"].value == pytest.approx(expected, abs=1e-12)
    assert label_coverage(torch.zeros(10).long(), 1000)["reverse_kl"].value == pytest.approx(math.log(1000))
    assert label_coverage(torch.arange(7), 7)["reverse_kl"].value == pytest.approx(0, abs=1e-12)


def test_a_perfect_stacked_mnist_generator_is_at_its_noise_floor():
    labels = torch.randint(1000, (26_000,), generator=torch.Generator().manual_seed(0))
    found = label_coverage(labels, 1000)
    assert found["modes"].value == 1000
    assert found["reverse_kl"].details["floor"] == pytest.approx(0.0192, abs=1e-4)
    assert found["reverse_kl"].value == pytest.approx(0.0192, abs=0.003)  # three standard deviations of 0.0009
    low, high = found["reverse_kl"].interval
    assert low < found["reverse_kl"].value < high
    assert 0.002 < high - low < 0.006


def test_samples_that_all_miss_have_no_divergence():
    found = mode_coverage(torch.full((5, 2), 50.0), torch.zeros(1, 2), 1.0)
    assert found["modes"].value == 0
    assert found["high_quality"].value == 0
    assert found["reverse_kl"].value == math.inf
    assert "no interval" in str(found["reverse_kl"])


# Precision, recall, density, coverage


def reference(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """The definitions, by whole matrices."""

    def radii(z: np.ndarray) -> np.ndarray:
        return np.sort(np.linalg.norm(z[:, None] - z, axis=2), axis=1)[:, k]

    between = np.linalg.norm(real[:, None] - fake, axis=2)
    inside_real, inside_fake = between <= radii(real)[:, None], between <= radii(fake)
    return {
        "precision": inside_real.any(0).mean(),
        "recall": inside_fake.any(1).mean(),
        "density": inside_real.sum(0).mean() / k,
        "coverage": inside_real.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(60, 40, 3), (50, 90, 5), (7, 9, 1)])
def test_the_four_shares_by_their_definitions(n, m, k, monkeypatch):
    monkeypatch.setattr("earthworks.wgan.measures.neighbours.BLOCK", 7 * m)  # several blocks
    x, y = cloud(n, 3), cloud(m, 3, seed=1) * 0.8 + 0.2
    found = precision_recall_density_coverage(x, y, k=k)
    assert {name: measure.value for name, measure in found.items()} == pytest.approx(
        reference(x.numpy(), y.numpy(), k), abs=1e-6
    )


def test_coverage_of_equal_distributions_has_its_exact_expectation_and_density_is_one():
    found = [precision_recall_density_coverage(cloud(40, 5, 2 * s), cloud(60, 5, 2 * s + 1), k=3) for s in range(300)]
    expected = 1 - (39 / 99) * (38 / 98) * (37 / 97)
    assert found[0]["coverage"].details["expected"] == pytest.approx(expected, abs=1e-12)
    for name, truth in (("coverage", expected), ("density", 1.0)):
        values = np.array([result[name].value for result in found])
        assert values.mean() == pytest.approx(truth, abs=3 * values.std() / math.sqrt(300))


def test_a_generator_of_one_mode_is_precise_and_recalls_little():
    real = torch.cat([cloud(200, 2), cloud(200, 2, seed=1) + 100])
    found = precision_recall_density_coverage(real, cloud(400, 2, seed=2))
    assert found["precision"].value > 0.95
    assert found["recall"].value < 0.6
    assert found["coverage"].value == pytest.approx(0.5, abs=0.02)
    assert found["density"].value == pytest.approx(1, rel=0.15)  # does not see what is missing


def test_an_outlier_opens_precision_and_hardly_density():
    real = torch.cat([cloud(300, 2), torch.full((1, 2), 30.0)])  # whose ball reaches back over everything
    found = precision_recall_density_coverage(real, cloud(300, 2, seed=1) * 0.1 + torch.tensor([15.0, 15.0]))
    assert found["precision"].value == 1
    assert found["density"].value == pytest.approx(1 / 5, abs=1e-6)
    assert found["coverage"].value == pytest.approx(1 / 301)


def test_copies_are_in_the_balls_of_their_originals():
    x = cloud(50, 20) + 1000  # far from the origin, where |x|^2 - 2 x y + |y|^2 would round the copies apart
    found = precision_recall_density_coverage(x, x.clone())
    assert found["precision"].value == found["recall"].value == found["coverage"].value == 1
    stacked = torch.ones(20, 3)
    found = precision_recall_density_coverage(stacked, stacked)
    assert found["precision"].value == found["coverage"].value == 1


def test_a_point_is_not_its_own_neighbour_but_a_copy_of_it_is():
    x = torch.tensor([[0.0], [1.0], [3.0], [3.0]])
    distances, indices = nearest(x, x, 1, same=True)
    assert distances[:, 0].tolist() == [1, 1, 0, 0]
    assert indices[2:, 0].tolist() == [3, 2]


# Memorisation


def test_fresh_samples_are_no_nearer_to_the_training_data_than_held_out_ones(monkeypatch):
    monkeypatch.setattr("earthworks.wgan.measures.neighbours.RESAMPLES", 10)
    p_values = []
    for seed in range(60):
        found = nearest_training(cloud(80, 3, 3 * seed), cloud(100, 3, 3 * seed + 1), cloud(80, 3, 3 * seed + 2))
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.12)  # three standard errors
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.12)


def test_copies_are_found_and_shown():
    training = cloud(200, 5)
    found = nearest_training(training[50:90] + 1e-3, training, cloud(100, 5, seed=1), k=2)
    assert found.indices[:, 0].tolist() == list(range(50, 90))
    assert torch.allclose(found.distances[:, 0], torch.full((40,), 1e-3 * math.sqrt(5), dtype=torch.float64), rtol=1e-6)
    assert found.ratio.value < 0.01
    assert found.ratio.interval[1] < 0.01
    assert found.p_value < 1e-6


def test_the_memorisation_ratio_is_one_of_medians():
    training, mine, fresh = (
        torch.tensor([[0.0]]),
        torch.tensor([[1.0], [2.0], [30.0]]),
        torch.tensor([[4.0], [8.0], [9.0]]),
    )
    found = nearest_training(mine, training, fresh)
    assert found.ratio.value == 0.25
    assert found.p_value == pytest.approx(0.35)  # of the 20 orders, 7 have the rank sum of mine at most 1 + 2 + 6


# Intervals and errors


def test_nineteen_of_twenty_share_intervals_hold_the_share():
    random = np.random.default_rng(0)
    for share in (0.5, 0.95, 0.99):
        counts = random.binomial(200, share, 2000)
        held = np.mean([low <= share <= high for low, high in (wilson_interval(int(k), 200) for k in counts)])
        assert 0.92 <= held <= 0.985
    assert wilson_interval(200, 200)[0] == pytest.approx(1 - 0.0188, abs=1e-3)  # not a point


def test_a_measure_reads_as_one_line():
    found = precision_recall_density_coverage(cloud(50, 2), cloud(40, 2, seed=1))["density"]
    line = str(found)
    assert line.startswith("density = ")
    assert "95 % interval [" in line
    assert line.endswith("n=50, m=40)")


@pytest.mark.parametrize(
    ("measure", "sentence"),
    [
        (lambda: kernel_distance(cloud(1, 2), cloud(9, 2)), "1 real and 9 generated samples"),
        (lambda: precision_recall_density_coverage(cloud(5, 2), cloud(9, 2)), "k is 5; expected at least 1"),
        (lambda: precision_recall_density_coverage(cloud(9, 2), cloud(9, 2), k=0), "k is 0; expected at least 1"),
        (lambda: mode_coverage(cloud(9, 2), cloud(2, 3), 1.0), "dimension"),
        (lambda: mode_coverage(cloud(9, 2), cloud(2, 2), 0.0), "standard deviation of the modes is 0.0"),
        (lambda: mode_coverage(cloud(9, 2) * math.nan, cloud(2, 2), 1.0), "NaN"),
        (lambda: label_coverage(torch.tensor([0, 3]), 3), "labels from 0 to 3: expected 0 to 2"),
        (lambda: label_coverage(torch.tensor([0.5]), 3), "expected a list of integers"),
        (lambda: label_coverage(torch.zeros(0).long(), 3), "expected a list of integers"),
        (lambda: nearest_training(cloud(9, 2), cloud(9, 2), cloud(9, 3)), "dimension"),
        (lambda: nearest_training(cloud(9, 2), cloud(9, 2), cloud(9, 2), k=10), "k is 10; expected 1 to 9"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(measure, sentence):
    with pytest.raises(EarthworksError, match=sentence):
        measure()


def test_a_persons_picture_of_neighbours_stays_and_ours_is_written_again(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    data = load_dataset("digits", validation=0.2, seed=0)
    real = data.scaled(data.held_out)
    samples = Samples(real[:20], real[20:40], real[40:60])
    memorisation(folder, data, samples, seed=0)
    ours = folder.figures / "neighbours.png"
    assert b"tEXtSoftware\0Earthworks " in ours.read_bytes()
    ours.write_bytes(ours.read_bytes()[:100])
    memorisation(folder, data, samples, seed=0)
    assert len(ours.read_bytes()) > 100
    ours.write_bytes(b"mine")
    memorisation(folder, data, samples, seed=0)
    assert ours.read_bytes() == b"mine"
