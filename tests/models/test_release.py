"""Releases saved again by torch: every context, aggregation and scaler, and inconsistent files."""

from __future__ import annotations

import sys
import types
from enum import Enum

import numpy as np
import pytest
import torch
import yaml
from sklearn.preprocessing import RobustScaler, StandardScaler
from torch import nn

from stpredict.models import from_deepspot, load
from stpredict.models._deepspot._release import read_release

D, H, G, K, S, N = 4, 3, 5, 6, 2, 7
GENES = [f"G{i}" for i in range(G)]
SPOT_CONTEXTS = ["spot", "spot_subspot", "spot_neighbors", "spot_subspot_neighbors"]
CELLS = [
    ("cell", "max"),
    *(("cell_neighbors", aggregation) for aggregation in ("max", "mean", "sum")),
]


@pytest.fixture
def packages(monkeypatch):
    """Modules by the names that DeepSpot's have, with classes to be pickled by name."""
    modules = {}
    for parent in ("deepspot", "deepspot.spot", "deepspot.cell"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    for package, network in (("deepspot.spot", "DeepSpot"), ("deepspot.cell", "DeepCell")):
        module = types.ModuleType(f"{package}.model")
        for name in (network, "Phi", "Rho"):
            kind = type(name, (nn.Module,), {"__module__": module.__name__})
            setattr(module, name, kind)
        # the bound methods that a model keeps one of
        for context in [*SPOT_CONTEXTS, "cell", "cell_neighbors"]:
            method = types.FunctionType((lambda self: None).__code__, {}, f"_forward_{context}")
            setattr(getattr(module, network), method.__name__, method)
        module.Operation = Enum(
            "Operation",
            {"SUM": "sum", "MAX": "max", "MEAN": "mean"},
            type=str,
            module=module.__name__,
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)
        modules[package] = module
    return modules


def member(kind, *layers):
    network = kind()
    network.model = nn.Sequential(*layers)
    return network


def network_of(packages, context, aggregation="max", scaler=None, extra=(), forward=True):
    """A published network, by its layout only."""
    torch.manual_seed(0)
    is_spot = context.startswith("spot")
    module = packages["deepspot.spot" if is_spot else "deepspot.cell"]
    model = module.DeepSpot() if is_spot else module.DeepCell()
    parts = 1 + ("subspot" in context) + ("neighbors" in context)
    phi = nn.ModuleList(
        member(module.Phi, nn.Linear(D, H), nn.Dropout(0.3), nn.ReLU(inplace=True), *extra)
        for _ in range(3)
    )
    setattr(model, "phi_spot" if is_spot else "phi_cell", phi)
    model.rho = nn.ModuleList(
        member(module.Rho, nn.Dropout(0.2), nn.ReLU(), nn.Linear(parts * H, G), nn.Dropout(0.1))
        for _ in range(2)
    )
    model.scaler = scaler
    if not is_spot:
        model.agg_neighbors = module.Operation(aggregation)
    if forward:
        model._forward_fn = getattr(model, f"_forward_{context}")
    model._hparams = {
        "input_size": D,
        "output_size": G,
        "n_ensemble": 2,
        "n_ensemble_phi": 3,
        "phi2rho_size": H,
        f"{'spot' if is_spot else 'cell'}_context": context,
    }
    return model.eval()


def saved(path, model, *, protocol=2, hyperparameters=None):
    torch.save(model, path / "final_model.pkl", pickle_protocol=protocol)
    text = yaml.safe_dump({"image_feature_model": "uni", **(hyperparameters or {})})
    (path / "top_param_overall.yaml").write_text(text)
    return path


def forward(model, aggregation, embeddings):
    """The published forward pass, read off its description."""

    def encode(x):
        phis = model.phi_spot if hasattr(model, "phi_spot") else model.phi_cell
        return torch.stack([phi.model(x) for phi in phis], dim=1).median(dim=1).values

    parts = [encode(embeddings["center"])]
    if "subtiles" in embeddings:
        parts.append(encode(embeddings["subtiles"].flatten(0, 1)).reshape(N, S, H).sum(1))
    if "neighbors" in embeddings:
        pool = {"max": torch.amax, "mean": torch.mean, "sum": torch.sum}[aggregation]
        parts.append(pool(encode(embeddings["neighbors"].flatten(0, 1)).reshape(N, K, H), dim=1))
    x = torch.cat(parts, dim=1)
    with torch.no_grad():
        return torch.stack([rho.model(x) for rho in model.rho], dim=1).mean(dim=1).numpy()


def inputs_of(context):
    torch.manual_seed(1)
    embeddings = {"center": torch.randn(N, D)}
    if "subspot" in context:
        embeddings["subtiles"] = torch.randn(N, S, D)
    if "neighbors" in context:
        embeddings["neighbors"] = torch.randn(N, K, D)
        embeddings["neighbors"][:, -2:] = 0  # padding that is not masked
    return embeddings


def fitted(kind, **options):
    values = np.random.default_rng(0).gamma(2, 3, (50, G))
    values[:, 1] = 4  # constant
    return kind(**options).fit(values)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("context", "aggregation"), [*((context, "max") for context in SPOT_CONTEXTS), *CELLS]
)
def test_every_context_and_aggregation_predicts_as_published(
    packages, tmp_path, context, aggregation, protocol
):
    scaler = fitted(StandardScaler)
    model = network_of(packages, context, aggregation, scaler)
    read = from_deepspot(saved(tmp_path, model, protocol=protocol), genes=GENES)
    assert (read.context, read.genes) == (context, tuple(GENES))
    embeddings = inputs_of(context)
    expected = scaler.inverse_transform(forward(model, aggregation, embeddings))
    predicted = read.predict_array(**{k: v.numpy() for k, v in embeddings.items()}, device="cpu")
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "scaler",
    [
        None,
        fitted(RobustScaler),
        fitted(RobustScaler, with_centering=False),
        fitted(StandardScaler, with_mean=False),
        fitted(StandardScaler, with_std=False),
        fitted(StandardScaler, with_mean=False, with_std=False),
    ],
    ids=str,
)
def test_every_scaler_is_inverted(packages, tmp_path, scaler):
    model = network_of(packages, "spot", scaler=scaler)
    read = from_deepspot(saved(tmp_path, model), genes=GENES)
    embeddings = inputs_of("spot")
    expected = forward(model, "max", embeddings)
    if scaler is not None:
        expected = scaler.inverse_transform(expected)
    predicted = read.predict_array(embeddings["center"].numpy(), device="cpu")
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)
    # a median, or nothing, is not the mean of the training data
    knows = isinstance(scaler, StandardScaler) and scaler.with_mean
    assert read.training.knows_mean == knows


@pytest.mark.parametrize(
    ("published", "slot"),
    [("inception", "X_inception_v3"), ("hoptimus0", "X_h-optimus-0"), ("phikonv2", "X_phikon-v2")],
)
def test_published_encoder_names_are_translated(packages, tmp_path, published, slot):
    folder = saved(
        tmp_path,
        network_of(packages, "spot"),
        hyperparameters={"image_feature_model": published},
    )
    assert from_deepspot(folder, genes=GENES).recipe.embedding == slot


def test_hyperparameters_default_to_those_in_the_pickle(packages, tmp_path):
    folder = saved(tmp_path, network_of(packages, "spot_neighbors", forward=False))
    (folder / "top_param_overall.yaml").unlink()
    release = read_release(folder, genes=GENES)
    assert (release.context, release.encoder, release.options.n_phi) == ("spot_neighbors", None, 3)
    with pytest.raises(ValueError, match=r"names no encoder.*give embedding="):
        from_deepspot(folder, genes=GENES)
    assert from_deepspot(folder, genes=GENES, embedding="X_mine").context == "spot_neighbors"


class TestBadInput:
    def test_other_layers_are_refused(self, packages, tmp_path):
        extra = (nn.Linear(H, H), nn.ReLU())
        folder = saved(tmp_path, network_of(packages, "cell", extra=extra))
        with pytest.raises(ValueError, match=r"phi_cell\.0 has the layers .* another version"):
            read_release(folder, genes=GENES)

    def test_other_parts_are_refused(self, packages, tmp_path):
        model = network_of(packages, "cell")
        model.gene_expression = nn.Linear(G, G)
        with pytest.raises(ValueError, match="has the parts gene_expression, phi_cell, rho"):
            read_release(saved(tmp_path, model), genes=GENES)

    def test_shared_weights_are_refused(self, packages, tmp_path):
        model = network_of(packages, "spot")
        model.rho[1] = model.rho[0]
        with pytest.raises(ValueError, match="share weights"):
            read_release(saved(tmp_path, model), genes=GENES)

    def test_weights_that_are_not_finite_are_refused(self, packages, tmp_path):
        model = network_of(packages, "spot")
        model.phi_spot[1].model[0].bias.data[0] = torch.nan
        with pytest.raises(
            ValueError, match=r"phi_spot\.1\.model\.0\.bias has values that are not"
        ):
            read_release(saved(tmp_path, model), genes=GENES)

    def test_context_that_contradicts_the_weights_is_refused(self, packages, tmp_path):
        model = network_of(packages, "spot_neighbors")
        model._forward_fn = model._forward_spot
        with pytest.raises(ValueError, match="rho has 6 inputs, context 'spot' gives 1 × 3"):
            read_release(saved(tmp_path, model), genes=GENES)

    def test_scaler_of_other_targets_is_refused(self, packages, tmp_path):
        scaler = StandardScaler().fit(np.random.default_rng(0).normal(size=(9, G + 1)))
        folder = saved(tmp_path, network_of(packages, "spot", scaler=scaler))
        with pytest.raises(ValueError, match=r"mean_ of its StandardScaler has shape \(6,\)"):
            read_release(folder, genes=GENES)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[1, 2]", "holds a list, expected named hyperparameters"),
            ("a: [", "is not a valid YAML file"),
            ("!!python/object/apply:os.system ['true']", "is not a valid YAML file"),
            ("[" * 5000, "is not a valid YAML file"),
            ("a" * (1 << 20) + "b", "the limit is"),
            ("agg_neighbors: mean\ncell_context: cell", "not those of .*agg_neighbors is 'mean'"),
        ],
        ids=["list", "damaged", "hostile", "deep", "large", "other"],
    )
    def test_bad_hyperparameters_are_refused(self, packages, tmp_path, text, message):
        folder = saved(tmp_path, network_of(packages, "cell_neighbors"))
        (folder / "top_param_overall.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_release(folder, genes=GENES)

    def test_nested_hyperparameters_are_dropped(self, packages, tmp_path):
        folder = saved(tmp_path, network_of(packages, "spot"), hyperparameters={"a": [1, 2]})
        assert "a" not in read_release(folder, genes=GENES).hyperparameters

    @pytest.mark.parametrize(
        "line", ["a{i}: &a{i} [*a{j}, *a{j}]", "a{i}: &a{i} {{<<: [*a{j}, *a{j}]}}"]
    )
    def test_references_in_hyperparameters_are_refused(self, packages, tmp_path, line):
        folder = saved(tmp_path, network_of(packages, "spot"))
        # 22 lines are read in a second, each more doubles the time
        lines = ["a0: &a0 {a: 1}", *(line.format(i=i, j=i - 1) for i in range(1, 22))]
        (folder / "top_param_overall.yaml").write_text("\n".join(lines))
        with pytest.raises(ValueError, match="aliases and merge keys are refused"):
            read_release(folder, genes=GENES)

    @pytest.mark.parametrize("value", ["2001-99-99", "9" * 5000, "1:" * 200 + "1.5"])
    def test_invalid_values_of_hyperparameters_are_refused(self, packages, tmp_path, value):
        folder = saved(tmp_path, network_of(packages, "spot"))
        (folder / "top_param_overall.yaml").write_text(f"seed: {value}")
        with pytest.raises(ValueError, match=r"top_param_overall\.yaml is not a valid YAML file"):
            read_release(folder, genes=GENES)

    @pytest.mark.parametrize("value", [-1.0, 0.0, 1e300, 1e-300, np.nan])
    @pytest.mark.parametrize("kind", [StandardScaler, RobustScaler])
    def test_scales_must_be_positive_in_float32(self, packages, tmp_path, kind, value):
        scaler = fitted(kind)
        scaler.scale_[2] = value
        folder = saved(tmp_path, network_of(packages, "spot", scaler=scaler))
        with pytest.raises(ValueError, match="a scale that is not above 0"):
            read_release(folder, genes=GENES)

    def test_weights_that_overflow_float32_are_refused(self, packages, tmp_path):
        model = network_of(packages, "spot").double()
        model.rho[0].model[2].weight.data[0, 0] = 1e300
        with pytest.raises(ValueError, match=r"rho\.0\.model\.2\.weight has values that are not"):
            read_release(saved(tmp_path, model), genes=GENES)

    @pytest.mark.parametrize("path", [3, None, b"model"])
    def test_weights_that_are_no_path_are_refused(self, path):
        with pytest.raises(TypeError, match="weights must be a string or a path"):
            from_deepspot(path, genes=GENES)

    def test_seed_that_is_no_number_is_not_saved_as_one(self, packages, tmp_path):
        parameters = {"random_seed": True}
        folder = saved(tmp_path, network_of(packages, "spot"), hyperparameters=parameters)
        from_deepspot(folder, genes=GENES).save(tmp_path / "model")
        assert load(tmp_path / "model").training.seed == 0

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("gene_name\nA\n", "lacks isPredicted; it has gene_name"),
            ("isPredicted\nTrue\n", "lacks gene_name"),
            ("gene_name,isPredicted\nA,perhaps\n", "must be True or False: perhaps"),
            ("gene_name,isPredicted\nA,True\nB,False\n", "has 1 genes, .* predicts 5"),
            ("", "is not a table of genes"),
        ],
    )
    def test_bad_table_of_genes_is_refused(self, packages, tmp_path, table, message):
        folder = saved(tmp_path, network_of(packages, "spot"))
        (folder / "info_highly_variable_genes.csv").write_text(table)
        with pytest.raises(ValueError, match=message):
            read_release(folder)

    def test_several_tables_of_genes_are_refused(self, packages, tmp_path):
        folder = saved(tmp_path, network_of(packages, "spot"))
        for name in ("one.csv", "two.csv"):
            (folder / name).write_text("gene_name,isPredicted\n")
        with pytest.raises(ValueError, match=r"may be its genes: one\.csv, two\.csv; pass genes="):
            read_release(folder)
