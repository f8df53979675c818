"""DeepSpot's network: golden figures, a naive reference, masks, dropout and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stpredict.nn import DeepCell, DeepSets, _median, from_published_state
from stpredict.nn._dropout import keep_mask
from stpredict.nn._ensemble import MeanEnsemble, MedianEnsemble
from stpredict.nn._median import lower_median

GOLDEN = Path(__file__).parents[1] / "golden" / "deepspot_reference.npz"
CONTEXTS = ["spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"]
FULL = "spot_subspot_neighbors"
D, H, G, S, K = 6, 5, 4, 3, 7


class Naive(nn.Module):
    """The published layout: a module per member, loops, stacks."""

    def __init__(self, state: dict[str, Tensor], p: float = 0.0, p_out: float = 0.0) -> None:
        super().__init__()

        def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
            layer = nn.Linear(*weight.shape[::-1]).to(weight)
            layer.load_state_dict({"weight": weight, "bias": bias})
            return layer

        self.phi = nn.ModuleList(
            nn.Sequential(linear(w, b), nn.Dropout(p), nn.ReLU())
            for w, b in zip(state["phi.weight"], state["phi.bias"], strict=True)
        )
        self.rho = nn.ModuleList(
            nn.Sequential(nn.Dropout(p), nn.ReLU(), linear(w, b), nn.Dropout(p_out))
            for w, b in zip(state["rho.weight"], state["rho.bias"], strict=True)
        )

    def encode(self, x: Tensor) -> Tensor:
        return torch.stack([phi(x) for phi in self.phi], dim=0).median(dim=0).values

    def forward(self, center, subtiles=None, neighbors=None) -> Tensor:
        parts = [self.encode(center)]
        if subtiles is not None:
            parts.append(self.encode(subtiles).sum(1))
        if neighbors is not None:
            parts.append(self.encode(neighbors).max(1).values)
        x = torch.cat(parts, dim=1)
        return torch.stack([rho(x) for rho in self.rho], dim=0).mean(dim=0)

    def stacked_grads(self) -> dict[str, Tensor]:
        """Gradients by the names that `DeepSets` has."""
        linear = {"phi": [m[0] for m in self.phi], "rho": [m[2] for m in self.rho]}
        return {
            f"{part}.{kind}": torch.stack([getattr(layer, kind).grad for layer in layers])
            for part, layers in linear.items()
            for kind in ("weight", "bias")
        }


def make_network(context: str = FULL, **options) -> DeepSets:
    torch.manual_seed(0)
    sizes = {"n_hidden": H, "n_phi": 4, "n_rho": 3} | options
    return DeepSets(D, G, context=context, **sizes).double().eval()


def make_inputs(context: str = FULL, n: int = 8, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {"center": draw(n, D)}
    if "subspot" in context:
        inputs["subtiles"] = draw(n, S, D)
    if "neighbors" in context:
        inputs["neighbors"] = draw(n, K, D)
    return inputs


@pytest.mark.parametrize("context", CONTEXTS)
def test_deepspot_reproduces_the_golden_figures(context):
    with np.load(GOLDEN) as stored:
        figures = {name: torch.from_numpy(stored[name]) for name in stored.files}
    prefix = f"deepspot/{context}/"
    state = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}
    expected = state.pop("y")
    network = DeepSets(16, 7, context=context, n_hidden=12, n_phi=3, n_rho=3)
    network.load_state_dict(from_published_state(state))
    inputs = {"center": figures["x_center"].squeeze(1)}
    if network.uses_subtiles:
        inputs["subtiles"] = figures["x_sub"]
    if network.uses_neighbors:
        inputs["neighbors"] = figures["x_neighbors"]
    torch.testing.assert_close(network.eval()(**inputs), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", ["cell", "cell_neighbors"])
@pytest.mark.parametrize("aggregation", ["max", "mean", "sum"])
def test_deepcell_reproduces_the_golden_figures(aggregation, context):
    with np.load(GOLDEN) as stored:
        figures = {name: torch.from_numpy(stored[name]) for name in stored.files}
    prefix = f"deepcell/{aggregation}/{context}/"
    state = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}
    expected = state.pop("y")
    stacked = from_published_state(state)
    (n_phi, n_hidden, n_features), (n_rho, n_targets, _) = (
        stacked[f"{part}.weight"].shape for part in ("phi", "rho")
    )
    sizes = {"n_hidden": n_hidden, "n_phi": n_phi, "n_rho": n_rho}
    network = DeepCell(n_features, n_targets, context=context, aggregation=aggregation, **sizes)
    network.load_state_dict(stacked)
    inputs = {"center": figures["x_center"].squeeze(1)}
    if network.uses_neighbors:
        inputs["neighbors"] = figures["x_neighbors"]  # padding is used, as in the published code
    torch.testing.assert_close(network.eval()(**inputs), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("aggregation", ["max", "mean", "sum"])
def test_masked_neighbours_are_reduced_like_in_a_loop(aggregation):
    torch.manual_seed(0)
    sizes = {"n_hidden": H, "n_phi": 3, "n_rho": 2}
    network = DeepCell(D, G, aggregation=aggregation, **sizes).double().eval()
    inputs = make_inputs("spot_neighbors")
    mask = torch.rand(8, K, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[3] = False
    y = network(**inputs, neighbor_mask=mask)
    for i in range(8):
        center_h = network.encode(inputs["center"][i : i + 1])[0]
        near = [network.encode(x[None])[0] for x in inputs["neighbors"][i][mask[i]]]
        reduced = torch.zeros_like(center_h)
        for h in near:
            if aggregation == "max":
                reduced = torch.maximum(reduced, h)  # phi ends in ReLU
            else:
                reduced = reduced + h / (len(near) if aggregation == "mean" else 1)
        expected = network.rho(torch.cat([center_h, reduced])[None])[0]
        torch.testing.assert_close(y[i], expected)


def test_golden_figures_contain_padding():
    with np.load(GOLDEN) as stored:
        assert (stored["x_neighbors"] == 0).all(-1).any()


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("n_phi", [1, 2, 3, 10])
def test_same_output_and_gradients_as_the_naive_network(context, n_phi):
    network = make_network(context, n_phi=n_phi, dropout=0.0, output_dropout=0.0).train()
    naive = Naive(network.state_dict())
    inputs = make_inputs(context)
    ours = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    theirs = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    y, expected = network(**ours), naive(**theirs)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, grad in naive.stacked_grads().items():
        torch.testing.assert_close(network.get_parameter(name).grad, grad, msg=name)
    for name in inputs:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, msg=name)


def test_float32_agrees_with_the_naive_network_at_full_width():
    torch.manual_seed(0)
    network = DeepSets(64, 30).eval()
    naive = Naive(network.state_dict())
    center, subtiles, neighbors = torch.randn(9, 64), torch.randn(9, 9, 64), torch.randn(9, 6, 64)
    with torch.no_grad():
        y, expected = (net(center, subtiles, neighbors) for net in (network, naive))
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_chunks_change_nothing(monkeypatch):
    # rho uses its training path, but drops nothing
    network = make_network(n_hidden=40, dropout=0.0, output_dropout=1e-9).train()
    inputs = make_inputs(n=150)
    whole = _grads(network, inputs)
    monkeypatch.setattr("stpredict.nn._dropout._CHUNK_CPU", 1)
    monkeypatch.setattr("stpredict.nn._median._BACKWARD_ROWS_CPU", 31)
    for name, grad in _grads(network, inputs).items():
        torch.testing.assert_close(grad, whole[name], msg=name)


def _grads(network: DeepSets, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    network.zero_grad()
    y = network(**inputs)
    y.square().sum().backward()
    return {"y": y.detach()} | {k: v.grad.clone() for k, v in network.named_parameters()}


def test_dense_and_sparse_backward_agree(monkeypatch):
    network, inputs = make_network(), make_inputs()
    inputs["center"].requires_grad_()
    sparse = _grads(network, inputs) | {"x": inputs["center"].grad.clone()}
    inputs["center"].grad = None
    monkeypatch.setattr(_median, "_backward_sparse", _median._backward_dense)
    dense = _grads(network, inputs) | {"x": inputs["center"].grad}
    for name in sparse:
        torch.testing.assert_close(sparse[name], dense[name], msg=name)


@pytest.mark.parametrize("backward", ["_backward_sparse", "_backward_dense"])
def test_frozen_weights_do_not_change_the_gradient_of_the_inputs(monkeypatch, backward):
    monkeypatch.setattr(_median, "_backward_sparse", getattr(_median, backward))
    network, inputs = make_network(), make_inputs()
    inputs["center"].requires_grad_()
    _grads(network, inputs)
    expected = inputs["center"].grad.clone()
    inputs["center"].grad = None
    network.zero_grad()
    network.requires_grad_(False)(**inputs).square().sum().backward()
    torch.testing.assert_close(inputs["center"].grad, expected)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ensemble", ["median", "mean"])
def test_gradients_of_ensembles_equal_finite_differences(ensemble, training):
    torch.manual_seed(3)
    if ensemble == "median":
        module = MedianEnsemble(3, 4, n_members=5, dropout=0.4)
    else:
        module = MeanEnsemble(3, 4, n_members=5, dropout=0.4, output_dropout=0.2)
    module = module.double().train(training)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(4)
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, module.weight, module.bias))


def test_exactly_one_of_tied_members_receives_the_gradient():
    module = MedianEnsemble(3, 2, n_members=3, dropout=0.0)
    with torch.no_grad():
        module.weight[:] = 1.0
        module.bias[:] = 1.0
    module(torch.ones(1, 3)).sum().backward()
    torch.testing.assert_close(module.bias.grad.sum(0), torch.ones(2))


@given(n=st.integers(1, 14), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_lower_median_is_torch_median(n, seed):
    # Few distinct values, so that ties occur.
    planes = torch.randint(0, 6, (n, 30), generator=torch.Generator().manual_seed(seed)).float()
    torch.testing.assert_close(lower_median(planes), planes.median(0).values, atol=0, rtol=0)


def test_lower_median_propagates_nan():
    planes = torch.randn(10, 5)
    planes[3, 2] = torch.nan
    torch.testing.assert_close(lower_median(planes).isnan(), torch.arange(5) == 2)


@pytest.mark.parametrize("context", CONTEXTS)
def test_gathered_predictions_equal_plain_ones(context):
    network = make_network(context)
    n_tiles = 12
    tiles = make_inputs(context, n=n_tiles)["center"]
    center = torch.tensor([3, 4, 5, 3])
    gathered, plain = {"center": center}, {"center": tiles[center]}
    if network.uses_subtiles:
        plain["subtiles"] = gathered["subtiles"] = make_inputs(context, n=4)["subtiles"]
    if network.uses_neighbors:
        index = torch.randint(0, n_tiles, (4, K), generator=torch.Generator().manual_seed(0))
        mask = torch.arange(K) < torch.tensor([K, 3, 1, 0]).unsqueeze(1)
        plain |= {"neighbors": tiles[index], "neighbor_mask": mask}
        gathered |= {"neighbors": index.masked_fill(~mask, -1), "neighbor_mask": mask}
    torch.testing.assert_close(
        network.forward_gathered(tiles, **gathered), network(**plain), atol=1e-12, rtol=0
    )


def test_gathered_gradients_equal_plain_ones():
    network = make_network()
    tiles = make_inputs(n=12)["center"]
    index = torch.randint(0, 12, (8, K), generator=torch.Generator().manual_seed(0))
    center, subtiles = torch.arange(8), make_inputs()["subtiles"]
    plain = _grads(
        network, {"center": tiles[center], "subtiles": subtiles, "neighbors": tiles[index]}
    )
    network.zero_grad()
    y = network.forward_gathered(tiles, center=center, neighbors=index, subtiles=subtiles)
    y.square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], msg=name)


def test_masked_neighbours_are_ignored():
    network, inputs = make_network(), make_inputs()
    mask = torch.arange(K) < 3
    inputs["neighbors"] *= 3
    expected = network(**inputs | {"neighbors": inputs["neighbors"][:, :3]})
    padded = inputs["neighbors"].masked_fill(~mask.unsqueeze(-1), 1e6)
    y = network(**inputs | {"neighbors": padded}, neighbor_mask=mask.expand(8, K))
    torch.testing.assert_close(y, expected)
    # phi(0) = relu(bias) is not zero: without a mask, the padding changes the prediction.
    assert not torch.allclose(network(**inputs | {"neighbors": padded}), expected)


def test_spots_without_neighbours_get_zeros_and_finite_gradients():
    network, inputs = make_network(), make_inputs()
    mask = torch.zeros(8, K, dtype=torch.bool)
    y = network(**inputs, neighbor_mask=mask)
    center_h = network.encode(inputs["center"])
    subtiles_h = network.encode(inputs["subtiles"].flatten(0, 1)).unflatten(0, (8, S))
    by_hand = network.rho(torch.cat([center_h, subtiles_h.sum(1), center_h * 0], dim=1))
    torch.testing.assert_close(y, by_hand)
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    no_slots = network(**inputs | {"neighbors": inputs["neighbors"][:, :0]})
    torch.testing.assert_close(no_slots, y)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_predictions_are_independent_of_the_order_of_neighbours_and_subtiles(seed):
    network, inputs = make_network(), make_inputs(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(8, K, generator=generator) < 0.6
    k, s = (torch.randperm(n, generator=generator) for n in (K, S))
    y = network(**inputs, neighbor_mask=mask)
    shuffled = network(
        inputs["center"], inputs["subtiles"][:, s], inputs["neighbors"][:, k], mask[:, k]
    )
    torch.testing.assert_close(shuffled, y)


@given(n=st.integers(1, 7))
@settings(max_examples=7, deadline=None)
def test_evaluation_is_independent_of_the_rest_of_the_batch(n):
    network, inputs = make_network(), make_inputs()
    part = network(**{name: x[:n] for name, x in inputs.items()})
    torch.testing.assert_close(part, network(**inputs)[:n])


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.99999])
def test_keep_mask_keeps_the_right_fraction_independently(p):
    torch.manual_seed(0)
    mask = keep_mask((4, 500, 101), p=p, device=torch.device("cpu"))
    assert mask.shape == (4, 500, 101)
    assert abs(mask.double().mean() - (1 - p)) < 5 * (p * (1 - p) / mask.numel()) ** 0.5 + 1e-5
    if 0 < p < 0.9:
        signs = mask.double() - (1 - p)
        bound = 5 * p * (1 - p) / mask[0].numel() ** 0.5
        assert abs((signs[0] * signs[1]).mean()) < bound
        assert abs((signs[..., 1:] * signs[..., :-1]).mean()) < bound


def test_dropout_has_the_mean_and_spread_of_the_naive_network():
    network = make_network(dropout=0.3, output_dropout=0.1).train()
    naive = Naive(network.state_dict(), p=0.3, p_out=0.1).train()
    inputs = {name: x.expand(2000, *x.shape[1:]) for name, x in make_inputs(n=1).items()}
    with torch.no_grad():
        torch.manual_seed(0)
        pairs = [(network(**inputs), naive(**inputs))]
        pairs.append((network.encode(inputs["center"]), naive.encode(inputs["center"])))
    for ours, theirs in pairs:
        assert theirs.std(0).max() > 0.01
        error = theirs.std(0) / 2000**0.5
        assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * 2**0.5 * error).all()
        torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.15, atol=1e-9)


def test_the_same_seed_gives_the_same_training_step():
    network, inputs = make_network().train(), make_inputs()
    runs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        runs.append(_grads(network, inputs))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["y"], runs[2]["y"])


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast_is_close_and_keeps_gradients_float32(training):
    network = make_network(n_hidden=32, n_phi=5).float().train(training)
    inputs = {name: x.float() for name, x in make_inputs(n=40).items()}
    torch.manual_seed(0)
    exact = _grads(network, inputs)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(**inputs)
    network.zero_grad()
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert (y - exact["y"]).abs().max() < 0.03 * exact["y"].abs().max()
    for name, parameter in network.named_parameters():
        assert parameter.grad.dtype == torch.float32
        difference = (parameter.grad - exact[name]).norm()
        assert difference < 0.1 * exact[name].norm(), name


def test_members_are_initialised_like_linear_layers():
    torch.manual_seed(0)
    weight = DeepSets(100, 50).phi.weight
    assert weight.shape == (10, 512, 100)
    assert weight.abs().max() <= 0.1
    assert weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_an_empty_batch_gives_an_empty_prediction():
    network = make_network()
    y = network(**make_inputs(n=0))
    assert y.shape == (0, G)
    y.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "spots"}, r"context='spots' is not one of 'spot', 'spot_subspot"),
        ({"aggregation": "min"}, r"aggregation='min' is not one of 'max', 'mean', 'sum'"),
        ({"n_hidden": 0}, r"n_hidden=0 must be at least 1"),
        ({"n_phi": 256}, r"n_phi=256 must be 1 to 255"),
        ({"n_rho": 0}, r"n_rho=0 must be 1 to 255"),
        ({"dropout": 1.0}, r"dropout=1.0 must be at least 0 and below 1"),
        ({"output_dropout": -0.1}, r"output_dropout=-0.1 must be"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeepSets(D, G, **options)


@pytest.mark.parametrize(
    ("context", "change", "message"),
    [
        (FULL, {"subtiles": None}, r"needs subtiles: pass subtiles="),
        (FULL, {"neighbors": None}, r"needs neighbors: pass"),
        ("spot", {"subtiles": torch.zeros(8, S, D).double()}, r"context='spot' takes no subtiles"),
        (
            "spot",
            {"neighbors": torch.zeros(8, K, D).double()},
            r"takes no neighbors: omit",
        ),
        ("spot", {"neighbor_mask": torch.ones(8, K).bool()}, r"omit neighbor_mask="),
        (FULL, {"center": torch.zeros(8, 2)}, r"center has shape \(8, 2\), but \(any, 6\)"),
        (FULL, {"center": torch.zeros(8, 1, D)}, r"center has shape \(8, 1, 6\)"),
        (FULL, {"center": torch.zeros(8, D)}, r"Embeddings are torch.float32, the weights"),
        (FULL, {"subtiles": torch.zeros(7, S, D)}, r"subtiles has shape \(7, 3, 6\)"),
        (FULL, {"neighbors": torch.zeros(8, D)}, r"neighbors has shape \(8, 6\), but \(8, any, 6"),
        (FULL, {"neighbor_mask": torch.ones(8, K)}, r"neighbor_mask is torch.float32"),
        (FULL, {"neighbor_mask": torch.ones(8, 2).bool()}, r"neighbor_mask has shape \(8, 2\)"),
    ],
)
def test_invalid_inputs_are_refused(context, change, message):
    with pytest.raises(ValueError, match=message):
        make_network(context)(**make_inputs(context) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"center": torch.tensor([0, 12])}, r"center holds rows 0 to 12, tiles has 0 to 11"),
        ({"center": torch.tensor([0, -1])}, r"center holds rows -1 to 0"),
        ({"center": torch.tensor([0.0, 1.0])}, r"center is torch.float32, .* call .long\(\)"),
        ({"neighbors": torch.full((2, K), 99)}, r"neighbors holds rows 99 to 99"),
        ({"neighbors": torch.zeros(3, K).long()}, r"neighbors has shape \(3, 7\), but \(2, any\)"),
    ],
)
def test_invalid_rows_of_tiles_are_refused(change, message):
    inputs = {"center": torch.tensor([0, 1]), "neighbors": torch.zeros(2, K).long()}
    network = make_network("spot_neighbors")
    with pytest.raises(ValueError, match=message):
        network.forward_gathered(make_inputs(n=12)["center"], **inputs | change)


def test_a_published_state_that_does_not_fit_is_refused():
    state = {
        "phi_spot.0.model.0.weight": torch.zeros(H, D),
        "phi_spot.0.model.0.bias": torch.zeros(H),
        "rho.0.model.2.weight": torch.zeros(G, H),
        "rho.0.model.2.bias": torch.zeros(G),
    }
    assert {k: tuple(v.shape) for k, v in from_published_state(state).items()} == {
        "phi.weight": (1, H, D),
        "phi.bias": (1, H),
        "rho.weight": (1, G, H),
        "rho.bias": (1, G),
    }
    with pytest.raises(ValueError, match=r"'head.weight' is not a weight of a published"):
        from_published_state(state | {"head.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"rho.bias needs members .* has members \[0, 2\]"):
        from_published_state(state | {"rho.2.model.2.bias": torch.zeros(G)})
    with pytest.raises(ValueError, match=r"phi.weight needs members .* shapes"):
        from_published_state(state | {"phi_spot.1.model.0.weight": torch.zeros(H, 2)})
    del state["rho.0.model.2.weight"]
    with pytest.raises(ValueError, match=r"rho.weight needs members"):
        from_published_state(state)
