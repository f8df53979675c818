"""Losses: golden figures, formulas, gradients, constants, batches of one, bf16 and names."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from stpredict.nn import losses
from stpredict.nn.losses import _rank

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "deepspot_reference.npz")
N, G = 7, 5
NAMES = list(losses.LOSSES)
COUNTS = [name for name, loss in losses.LOSSES.items() if loss.needs_counts]
every_loss = pytest.mark.parametrize("name", NAMES)


def make(name, *, n_targets=G, **options):
    return losses.make(name, n_targets=n_targets, **options)


def data(n=N, g=G, *, dtype=torch.float64, counts=False, seed=0):
    seeded = np.random.default_rng(seed)
    predicted = torch.tensor(seeded.normal(size=(n, g)), dtype=dtype)
    target = seeded.poisson(3, (n, g)) if counts else seeded.normal(size=(n, g))
    library = torch.tensor(seeded.normal(size=n) / 3, dtype=dtype)
    return predicted, torch.tensor(target, dtype=dtype), library


def data_for(name, n=N, g=G, **options):
    return data(n, g, counts=name in COUNTS, **options)


def gradient(loss, predicted, target, library):
    predicted = predicted.clone().requires_grad_()
    value = loss(predicted, target, library)
    value.backward()
    return value.detach(), predicted.grad


# golden figures ---------------------------------------------------------------------------------

PUBLISHED = [
    *((f"spot/{name}", name, {}) for name in ("cosine", "mse_cosine", "mse")),
    ("spot/pearson", "pearson_spot", {}),
    ("spot/mse_pearson", "mse_cosine", {"mse_weight": 0.2}),
    *(
        (f"cell/{name}", name, {})
        for name in (
            "cosine",
            "huber_cosine",
            "huber",
            "l1_cosine",
            "l1",
            "mse_cosine",
            "mse",
            "pearson",
        )
    ),
    ("cell/mse_pearson", "mse_cosine", {"cosine_weight": 0.1}),
]


@pytest.mark.parametrize(("key", "name", "options"), PUBLISHED)
def test_losses_reproduce_the_published_figures(key, name, options):
    predicted, target = (torch.from_numpy(GOLDEN[f"loss/{key}"]) for key in ("pred", "target"))
    value = losses.make(name, **options)(predicted, target)
    assert value.item() == pytest.approx(float(GOLDEN[f"loss/{key}"]), rel=1e-5)


def test_every_golden_figure_is_used():
    keys = {key for key, _, _ in PUBLISHED} | {"spot/poisson", "cell/poisson"}
    assert {f"loss/{key}" for key in keys} | {"loss/pred", "loss/target"} == {
        key for key in GOLDEN.files if key.startswith("loss/")
    }


@pytest.mark.parametrize("key", ["spot/mse_pearson", "cell/mse_pearson", "spot/pearson"])
def test_some_names_differ_from_the_published_ones(key):
    predicted, target = (torch.from_numpy(GOLDEN[f"loss/{key}"]) for key in ("pred", "target"))
    value = losses.make(key.partition("/")[2])(predicted, target)
    assert abs(value.item() - float(GOLDEN[f"loss/{key}"])) > 0.1


@pytest.mark.parametrize("key", ["spot/poisson", "cell/poisson"])
def test_the_published_poisson_uses_the_exponential_as_log_rate(key):
    predicted, target = GOLDEN["loss/pred"], GOLDEN["loss/target"]
    published = np.mean(np.exp(np.exp(predicted)) - target * np.exp(predicted))
    assert published == pytest.approx(float(GOLDEN[f"loss/{key}"]), rel=1e-5)
    ours = losses.make("poisson")(
        torch.from_numpy(predicted), torch.from_numpy(target), torch.zeros(len(target))
    )
    assert abs(ours.item() - published) > 1


# direct formulas --------------------------------------------------------------------------------


def by_formula(name, p, t, library):
    e = p - t
    rows, columns = zip(p, t, strict=True), zip(p.T, t.T, strict=True)
    if name == "mse":
        return np.mean(e**2)
    if name == "l1":
        return np.mean(np.abs(e))
    if name == "huber":
        return np.mean(np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5))
    if name == "bce":
        return -np.mean(t * np.log(1 / (1 + np.exp(-p))) + (1 - t) * np.log(1 / (1 + np.exp(p))))
    if name == "cosine":
        return np.mean([1 - a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in columns])
    if name == "pearson":
        return np.mean([1 - scipy.stats.pearsonr(a, b).statistic for a, b in columns])
    if name == "pearson_spot":
        return np.mean([1 - scipy.stats.pearsonr(a, b).statistic for a, b in rows])
    if name == "poisson":
        return -np.mean(scipy.stats.poisson.logpmf(t, np.exp(p + library[:, None])))
    if name == "negative_binomial":  # dispersion 1
        return -np.mean(scipy.stats.nbinom.logpmf(t, 1, 1 / (1 + np.exp(p + library[:, None]))))
    if name == "hybrid_rank":
        return 0.7 * np.mean(e**2) + 0.3 * by_formula("pairwise_hinge", p, t, library)
    if name == "pairwise_spots":
        return np.mean([pairs(name, a, b) for a, b in columns])
    if name == "mse_pairwise_spots":
        return np.mean(e**2) + by_formula("pairwise_spots", p, t, library)
    if name.startswith("pairwise"):
        return np.mean([pairs(name, a, b) for a, b in rows])
    first, second = name.split("_")
    return by_formula(first, p, t, library) + by_formula(second, p, t, library)


def pairs(name, p, t, margin=1.0):
    costs, weights = [], []
    for j, k in itertools.combinations(range(len(p)), 2):
        if t[j] == t[k]:
            continue
        high, low = (j, k) if t[j] > t[k] else (k, j)
        ahead = p[high] - p[low]
        hinge = name == "pairwise_hinge"
        costs.append(max(0, margin - ahead) if hinge else np.log1p(np.exp(-ahead)))
        weights.append(t[high] - t[low] if name == "pairwise_spots" else 1)
    return np.average(costs, weights=weights) if costs else 0.0


@every_loss
def test_losses_equal_the_direct_formula(name):
    predicted, target, library = data_for(name)
    expected = by_formula(name, *(values.numpy() for values in (predicted, target, library)))
    assert make(name)(predicted, target, library).item() == pytest.approx(expected, rel=1e-9)
    single = make(name)(predicted.float(), target.float(), library.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5)


@every_loss
def test_only_likelihoods_of_counts_use_library_sizes(name):
    predicted, target, library = data_for(name)
    loss = make(name)
    with_library = loss(predicted, target, library)
    assert loss(predicted, target, library[:, None]) == with_library
    if name in COUNTS:
        shifted = loss(predicted + library[:, None], target, torch.zeros(N))
        assert shifted.item() == pytest.approx(with_library.item(), rel=1e-12)
        with pytest.raises(ValueError, match=f"{name} needs log_library"):
            loss(predicted, target)
    else:
        assert loss(predicted, target) == with_library


@pytest.mark.parametrize("name", ["mse_pearson", "mse_cosine", "l1_cosine", "huber_cosine"])
def test_a_pair_is_the_weighted_sum_of_its_losses(name):
    predicted, target, _ = data()
    first, second = name.split("_")
    weights = {f"{first}_weight": 0.3, f"{second}_weight": 2.0}
    expected = 0.3 * make(first)(predicted, target) + 2 * make(second)(predicted, target)
    assert make(name, **weights)(predicted, target).item() == pytest.approx(expected.item())


def test_huber_with_a_large_delta_is_half_the_squared_error():
    predicted, target, _ = data()
    huge = make("huber", delta=1e6)(predicted, target)
    assert huge.item() == pytest.approx(make("mse")(predicted, target).item() / 2)


def test_pairs_beyond_the_margin_cost_nothing():
    predicted, target = torch.tensor([[2.0, 1.5]]), torch.tensor([[5.0, 1.0]])
    for margin, cost in ((0.0, 0.0), (0.5, 0.0), (2.0, 1.5)):
        assert make("pairwise_hinge", margin=margin)(predicted, target).item() == cost


@given(
    target=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5),
    name=st.sampled_from(["pairwise_hinge", "pairwise_logistic"]),
    chunk=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_ties_are_not_pairs_and_chunks_change_nothing(target, name, chunk):
    target = torch.tensor(target, dtype=torch.float64)
    predicted = data(len(target), 4)[0]
    expected = np.mean(
        [pairs(name, p, t) for p, t in zip(predicted.numpy(), target.numpy(), strict=True)]
    )
    before, _rank._CHUNK_CPU = _rank._CHUNK_CPU, chunk
    try:
        value, grad = gradient(make(name, n_targets=4), predicted, target, None)
    finally:
        _rank._CHUNK_CPU = before
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.allclose(grad, gradient(make(name, n_targets=4), predicted, target, None)[1])


@pytest.mark.parametrize("name", ["pairwise_hinge", "pairwise_logistic"])
def test_differences_of_many_targets_are_computed_in_chunks(name, monkeypatch):
    largest = 0

    def watched(values):
        nonlocal largest
        largest = max(largest, values.numel())
        return sign(values)

    sign = torch.sign
    monkeypatch.setattr(torch, "sign", watched)
    g = 1500
    predicted, target, _ = data(2, g, dtype=torch.float32)
    value, grad = gradient(make(name, n_targets=g), predicted, target, None)
    assert largest <= _rank._CHUNK_CPU < g * g
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()


def test_rank_losses_depend_on_the_order_only():
    predicted, target, _ = data()
    for name in ("pairwise_hinge", "pairwise_logistic"):
        assert make(name)(predicted, target) == make(name)(predicted, target.exp() * 3)


numbers = st.integers(0, 3)
spots_of_sections = st.lists(
    st.tuples(st.lists(numbers, min_size=3, max_size=3), st.sampled_from([2, 5, 9])),
    min_size=1,
    max_size=12,
)


def section_by_section(name, predicted, target, section):
    """A loss by its formula in each section, with the numbers of spots as weights."""
    loss = 0
    for number in set(section.tolist()):
        p, t = (values[section == number].numpy() for values in (predicted, target))
        loss += by_formula(name, p, t, None) * len(p) / len(section)
    return loss


@given(spots_of_sections, st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_pairs_of_spots_are_those_of_each_section(spots, chunk):
    target = torch.tensor([values for values, _ in spots], dtype=torch.float64)
    section = torch.tensor([number for _, number in spots])
    predicted = data(len(spots), 3)[0]
    expected = section_by_section("pairwise_spots", predicted, target, section)
    before, _rank._CHUNK_CPU = _rank._CHUNK_CPU, chunk
    try:
        loss = functools.partial(make("pairwise_spots", n_targets=3), section=section)
        value, grad = gradient(lambda p, t, _: loss(p, t), predicted, target, None)
    finally:
        _rank._CHUNK_CPU = before
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.isfinite(grad).all()
    assert torch.autograd.gradcheck(lambda p: loss(p, target), predicted.requires_grad_())


WITHIN_SECTIONS = [name for name, loss in losses.LOSSES.items() if loss.within_sections]


@pytest.mark.parametrize("name", WITHIN_SECTIONS)
def test_losses_over_spots_are_the_mean_of_those_of_each_section(name):
    predicted, target, _ = data(40)
    section = torch.from_numpy(
        np.random.default_rng(1).permutation(np.repeat([2, 5, 9], [6, 4, 30]))
    )
    value = make(name)(predicted, target, section=section)
    expected = section_by_section(name, predicted, target, section)
    assert value.item() == pytest.approx(expected)
    assert value.item() != pytest.approx(make(name)(predicted, target).item(), abs=1e-3)
    assert torch.autograd.gradcheck(
        lambda p: make(name)(p, target, section=section), predicted.requires_grad_()
    )


@pytest.mark.parametrize("name", ["pearson", "pairwise_spots"])
def test_the_level_of_a_section_is_not_rewarded(name):
    predicted, target, _ = data(200)
    section = torch.arange(200) % 2
    level = (10.0 * section - 5)[:, None]  # random values of different levels correlate
    assert make(name)(predicted + level, target + level) < 0.2
    within = make(name)(predicted + level, target + level, section=section)
    assert within.item() == pytest.approx(make(name)(predicted, target, section=section).item())


def test_pairs_across_sections_never_count():
    predicted, target, _ = data()
    section = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    in_first = (section == 0).double()[:, None]
    for name in ("pairwise_spots", "mse_pairwise_spots"):
        loss = functools.partial(make(name), section=section)
        # a shift of a whole section changes all pairs across sections, and none within
        both = torch.stack([predicted, predicted + 100 * in_first])
        if name == "pairwise_spots":
            assert loss(both[0], target).item() == pytest.approx(loss(both[1], target).item())
            shifted = loss(predicted, target - 7 * in_first)
            assert shifted.item() == pytest.approx(loss(predicted, target).item())
        # one spot of each section has no partner, so only the squared error is left
        alone = make(name)(predicted, target, section=torch.arange(N))
        expected = 0 if name == "pairwise_spots" else F.mse_loss(predicted, target)
        assert float(alone) == pytest.approx(float(expected))


def test_losses_of_single_spots_do_not_depend_on_sections():
    section = torch.arange(N) % 2
    for name in NAMES:
        if losses.LOSSES[name].within_sections:
            continue
        predicted, target, library = data_for(name)
        loss = make(name)
        assert loss(predicted, target, library, section) == loss(predicted, target, library)


def test_sections_of_another_number_of_spots_are_refused():
    predicted, target, _ = data()
    with pytest.raises(ValueError, match=r"section has shape \(3,\), but \(7\) is needed"):
        make("pairwise_spots")(predicted, target, section=torch.zeros(3))


@pytest.mark.parametrize("log_dispersion", [-8.0, -2.0, 1.0, 8.0])
@pytest.mark.parametrize("mean", [1e-6, 0.5, 300.0, 1e6])
def test_the_negative_binomial_is_that_of_scipy_for_any_dispersion(log_dispersion, mean):
    loss = make("negative_binomial", n_targets=1)
    with torch.no_grad():
        loss.unbounded.copy_(torch.atanh(torch.tensor(log_dispersion / 9)) * 9)
    size = math.exp(-loss.log_dispersion.item())
    counts = np.array([0, 1, 7, 1000, 10**6])
    expected = -scipy.stats.nbinom.logpmf(counts, size, size / (size + mean)).mean()
    predicted = torch.full((len(counts), 1), math.log(mean), dtype=torch.float64)
    value = loss(predicted, torch.from_numpy(counts)[:, None], torch.zeros(len(counts)))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_the_negative_binomial_learns_planted_rates_and_dispersions():
    seeded = np.random.default_rng(0)
    dispersion, rate = np.array([0.05, 0.5, 2.0]), np.array([2.0, 5.0, 20.0])
    library = seeded.uniform(0.3, 3, 4000)
    mean = library[:, None] * rate
    counts = torch.from_numpy(
        seeded.poisson(mean * seeded.gamma(1 / dispersion, dispersion, mean.shape))
    )
    loss = make("negative_binomial", n_targets=3)
    log_rate = nn.Parameter(torch.zeros(1, 3))
    optimizer = torch.optim.Adam([log_rate, *loss.parameters()], lr=0.05)
    offset = torch.from_numpy(np.log(library))
    for _ in range(300):
        optimizer.zero_grad()
        loss(log_rate.expand(len(counts), 3), counts, offset).backward()
        optimizer.step()
    np.testing.assert_allclose(log_rate.detach().exp().numpy()[0], rate, rtol=0.1)
    np.testing.assert_allclose(loss.log_dispersion.detach().exp().numpy(), dispersion, rtol=0.2)


# gradients --------------------------------------------------------------------------------------


@every_loss
def test_gradients_equal_finite_differences(name):
    predicted, target, library = data_for(name)
    loss = make(name).double()
    assert torch.autograd.gradcheck(
        lambda p: loss(p, target, library), predicted.requires_grad_(), atol=1e-6
    )


def test_the_gradient_of_the_dispersion_equals_finite_differences():
    predicted, target, library = data(counts=True)
    loss = make("negative_binomial").double()

    def by_dispersion(unbounded):
        return torch.func.functional_call(
            loss, {"unbounded": unbounded}, (predicted, target, library)
        )

    start = torch.linspace(-5, 5, G, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_dispersion, start)


#: Value of each loss if prediction and target are constant (2 and 3).
CONSTANT = {
    "mse": 1.0,
    "l1": 1.0,
    "huber": 0.5,
    "bce": math.log1p(math.exp(2)) - 6,
    "cosine": 0.0,
    "pearson": 1.0,
    "pearson_spot": 1.0,
    "poisson": math.exp(2) - 6 + math.log(6),
    "negative_binomial": -scipy.stats.nbinom.logpmf(3, 1, 1 / (1 + math.exp(2))),
    "mse_pearson": 2.0,
    "mse_cosine": 1.0,
    "l1_cosine": 1.0,
    "huber_cosine": 0.5,
    "pairwise_hinge": 0.0,
    "pairwise_logistic": 0.0,
    "pairwise_spots": 0.0,
    "mse_pairwise_spots": 1.0,
    "hybrid_rank": 0.7,
}


@pytest.mark.parametrize("n", [1, N])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_loss
def test_constant_predictions_and_targets_have_finite_losses_and_gradients(name, dtype, n):
    predicted, target = (torch.full((n, G), value, dtype=dtype) for value in (2.0, 3.0))
    value, grad = gradient(make(name), predicted, target, torch.zeros(n, dtype=dtype))
    assert value.item() == pytest.approx(CONSTANT[name], rel=1e-5, abs=1e-6)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("constant", ["predicted", "target"])
@pytest.mark.parametrize("value", [0.0, 3.0, 1e-20, 3.3])
@every_loss
def test_one_constant_side_has_a_finite_loss_and_gradient(name, constant, value):
    predicted, target, library = data_for(name, dtype=torch.float32)
    (predicted if constant == "predicted" else target).fill_(value)
    result, grad = gradient(make(name), predicted, target, library)
    assert torch.isfinite(result)
    assert torch.isfinite(grad).all()
    assert grad.abs().max() < 1e3
    if name in ("pearson", "pearson_spot"):
        assert result == 1
        assert not grad.any()
    if name == "cosine" and value in (0.0, 1e-20):
        assert result == 1
        assert not grad.any()


def test_a_constant_gene_has_a_correlation_of_zero():
    predicted, target, _ = data()
    target[:, 0] = 0.1 + 0.2  # in floats, the mean differs from the value
    expected = (4 * make("pearson", n_targets=4)(predicted[:, 1:], target[:, 1:]) + 1) / 5
    assert make("pearson")(predicted, target).item() == pytest.approx(expected.item())


@every_loss
def test_a_batch_of_one_has_a_finite_loss_and_gradient(name):
    predicted, target, library = data_for(name, 1, dtype=torch.float32)
    value, grad = gradient(make(name), predicted, target, library)
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()
    if name == "pearson":
        assert value == 1
        assert not grad.any()
    elif name == "cosine":
        signs = torch.sign(predicted * target)
        assert value.item() == pytest.approx((1 - signs).mean().item())
        assert grad.abs().max() < 1e-5


@pytest.mark.parametrize("scale", [1e-10, 1e25])
@pytest.mark.parametrize("name", ["cosine", "pearson", "pearson_spot"])
def test_cosines_and_correlations_are_independent_of_the_scale(name, scale):
    predicted, target, _ = data(dtype=torch.float32)
    expected, grad = gradient(make(name), predicted, target, None)
    value, scaled = gradient(make(name), predicted * scale, target * scale, None)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(scaled * scale, grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHIN_SECTIONS])
def test_means_over_batches_are_the_mean_over_spots(name):
    predicted, target, library = data_for(name)
    loss = make(name)
    parts = [slice(0, 4), slice(4, 6), slice(6, 7)]
    batches = [loss(predicted[rows], target[rows], library[rows]) for rows in parts]
    whole = sum(b * (rows.stop - rows.start) for b, rows in zip(batches, parts, strict=True)) / N
    assert whole.item() == pytest.approx(loss(predicted, target, library).item())


@every_loss
def test_a_step_along_the_gradient_lowers_the_loss(name):
    predicted, target, library = data_for(name, 40)
    loss, start = make(name), predicted.clone().requires_grad_()
    before = loss(start, target, library)
    before.backward()
    after = loss(predicted - 1e-3 * start.grad, target, library)
    assert after < before
    if name not in (*COUNTS, "bce", "hybrid_rank") and "pairwise" not in name:
        assert loss(target, target).item() == pytest.approx(0, abs=1e-12)


# precision --------------------------------------------------------------------------------------


@every_loss
def test_losses_are_computed_in_float32_under_autocast(name):
    predicted, target, library = data_for(name, 64, dtype=torch.float32)
    half = predicted.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value, grad = gradient(make(name), half, target, library)
    expected, expected_grad = gradient(make(name), half.float(), target, library)
    assert value.dtype == torch.float32
    assert value == expected
    assert torch.allclose(grad.float(), expected_grad, rtol=1e-2, atol=1e-6)


# the schedule -----------------------------------------------------------------------------------

SCHEDULES = {
    "linear": lambda p: 0.3 + 0.6 * p,
    "cosine": lambda p: 0.9 - 0.6 * (np.cos(np.pi * p) + 1) / 2,
    "exponential": lambda p: 0.3 * 3**p,
    "log": lambda p: 0.3 + 0.6 * np.log2(1 + p),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_weight_follows_its_schedule(schedule):
    loss = make("hybrid_rank", schedule=schedule)
    for p in np.linspace(0, 1, 11):
        loss.progress = p
        assert loss.weight == pytest.approx(SCHEDULES[schedule](p))
    loss.progress = 1.5
    assert loss.weight == pytest.approx(0.9)


@pytest.mark.parametrize("rank", ["pairwise_hinge", "pairwise_logistic"])
def test_the_hybrid_loss_weights_its_parts(rank):
    predicted, target, _ = data()
    loss = make("hybrid_rank", rank=rank, initial=0.2, final=0.6)
    mse, ranked = (make(name)(predicted, target) for name in ("mse", rank))
    for progress, weight in ((0.0, 0.2), (0.5, 0.4), (1.0, 0.6)):
        loss.progress = progress
        expected = (1 - weight) * mse + weight * ranked
        assert loss(predicted, target).item() == pytest.approx(expected.item())


def test_validation_always_uses_the_final_weight():
    predicted, target, _ = data()
    loss = make("hybrid_rank").eval()
    values = []
    for progress in (0.0, 0.5, 1.0):
        loss.progress = progress
        values.append(loss(predicted, target).item())
    assert loss.weight == 0.9
    assert len(set(values)) == 1


@every_loss
def test_progress_changes_only_losses_with_a_schedule(name):
    predicted, target, library = data_for(name)
    loss = make(name)
    assert loss.progress == 0
    before = loss(predicted, target, library)
    loss.progress = 0.7
    assert (loss(predicted, target, library) == before) == (name != "hybrid_rank")


# names and bad input ----------------------------------------------------------------------------


@every_loss
def test_every_loss_is_registered_by_its_name_and_documented(name):
    loss = make(name)
    assert type(loss) is losses.LOSSES[name]
    assert loss.name == name
    assert name in losses.__doc__
    assert bool(list(loss.parameters())) == ("n_targets" in loss.options())
    assert make(name) is not make(name)


def test_losses_declare_what_they_need():
    assert set(COUNTS) == {"poisson", "negative_binomial"}
    assert {name for name, loss in losses.LOSSES.items() if loss.needs_several_targets} == {
        "pearson_spot",
        "pairwise_hinge",
        "pairwise_logistic",
        "hybrid_rank",
    }
    with pytest.raises(TypeError):
        losses.LOSSES["mse"] = None


def test_a_module_is_used_as_it_is():
    loss = losses.make("mse")
    assert losses.make(loss, n_targets=1) is loss
    predicted, target, library = data()
    other = losses.make(nn.SmoothL1Loss())
    assert isinstance(other, losses.Loss)
    assert other(predicted, target, library) == F.smooth_l1_loss(predicted, target)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"loss": "mse_pearsen"},
            ValueError,
            "'mse_pearsen': did you mean 'mse_pearson'.*Losses: mse, l1",
        ),
        ({"loss": "cos"}, ValueError, "did you mean 'cosine'"),
        ({"loss": "MSE"}, ValueError, "did you mean 'mse'"),
        ({"loss": "xyzzy"}, ValueError, "No loss is named 'xyzzy': Losses: mse"),
        ({"loss": F.mse_loss}, TypeError, "a name or an nn.Module, not function"),
        ({"loss": None}, TypeError, "a name or an nn.Module, not NoneType"),
        (
            {"loss": "huber", "gamma": 1},
            TypeError,
            "huber has no option gamma.*: delta",
        ),
        ({"loss": "mse", "delta": 1}, TypeError, "mse has no option delta; its options are: none"),
        ({"loss": nn.MSELoss(), "delta": 1}, TypeError, "Options delta need a loss by name"),
        ({"loss": "negative_binomial"}, ValueError, "negative_binomial.*pass n_targets="),
        (
            {"loss": "negative_binomial", "n_targets": 0},
            ValueError,
            "n_targets=0 must be at least 1",
        ),
        ({"loss": "huber", "delta": 0}, ValueError, "delta=0 must be a finite number above 0"),
        ({"loss": "pairwise_hinge", "margin": -1}, ValueError, "margin=-1 must be"),
        ({"loss": "mse_cosine", "mse_weight": -1}, ValueError, "mse_weight=-1 must be"),
        ({"loss": "l1_cosine", "l1_weight": math.nan}, ValueError, "l1_weight=nan must be"),
        ({"loss": "mse_cosine", "pearson_weight": 1}, TypeError, "no option pearson_weight"),
        (
            {"loss": "mse_pearson", "mse_weight": 0, "pearson_weight": 0},
            ValueError,
            "mse_weight and pearson_weight are all 0",
        ),
        (
            {"loss": "hybrid_rank", "rank": "pearson"},
            ValueError,
            "rank='pearson' is not one of 'pairwise_hinge'",
        ),
        (
            {"loss": "hybrid_rank", "schedule": "step"},
            ValueError,
            "schedule='step' is not one of 'linear', 'cosine'",
        ),
        ({"loss": "hybrid_rank", "final": 1.1}, ValueError, r"final=1.1 must be in \[0, 1\]"),
        (
            {"loss": "hybrid_rank", "schedule": "exponential", "initial": 0},
            ValueError,
            "initial=0 must be above 0 and at most 1: exponential schedule",
        ),
    ],
)
def test_invalid_losses_and_options_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        losses.make(**wrong)


@pytest.mark.parametrize("name", [n for n in NAMES if losses.LOSSES[n].needs_several_targets])
def test_losses_that_compare_targets_refuse_a_single_one(name):
    message = f"loss='{name}' compares.*n_targets=1"
    with pytest.raises(ValueError, match=message):
        losses.make(name, n_targets=1)
    with pytest.raises(ValueError, match=message):
        losses.make(losses.make(name), n_targets=1)


@every_loss
def test_tensors_of_different_shapes_are_refused(name):
    predicted, target, library = data_for(name)
    loss = make(name)
    with pytest.raises(ValueError, match=r"target has shape \(7, 1\), but \(7, 5\) is needed"):
        loss(predicted, target[:, :1], library)
    with pytest.raises(ValueError, match="predicted has shape"):
        loss(predicted[0], target[0], library)
    with pytest.raises(ValueError, match="needs a spot and a target"):
        loss(predicted[:0], target[:0], library[:0])
    if name in COUNTS:
        with pytest.raises(ValueError, match=r"log_library has shape \(3, 1\), but \(7, 1\)"):
            loss(predicted, target, library[:3])


def test_a_dispersion_for_another_number_of_genes_is_refused():
    predicted, target, library = data(counts=True)
    with pytest.raises(ValueError, match="predicted has 5 targets, the loss 3"):
        make("negative_binomial", n_targets=3)(predicted, target, library)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 0.6931], "1 of 2 values of layers.'log1p'. are not whole numbers.*such as 0.6931"),
        ([-1.0, 2], "such as -1"),
        ([np.nan, 2], "such as nan"),
        ([np.inf, 2], "such as inf"),
    ],
)
def test_likelihoods_of_counts_refuse_other_values(name, values, message):
    with pytest.raises(ValueError, match=f"loss='{name}' is a likelihood.*{message}"):
        losses.check_counts(make(name), np.array(values), where="layers['log1p']")


def test_a_pair_made_directly_refuses_other_options():
    with pytest.raises(TypeError, match="mse_cosine has no option pearson_weight"):
        losses.MSECosine(pearson_weight=1)


def test_counts_and_other_losses_are_accepted():
    losses.check_counts(make("poisson"), np.array([[0, 1.0], [7, 3]]), where="X")
    losses.check_counts(make("mse"), np.array([0.5, -1]), where="layers['log1p']")
