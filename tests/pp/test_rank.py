"""Ranks within each spot equal scipy's row by row, and models of ranks report their units."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata as sd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import rankdata

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._layer_steps import units_of
from stpredict._sdata._provenance import read_steps
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import RankStep
from stpredict.pp import _rank_expression as _rank

SMALL = {"size_px": 600, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 3, "n_neighborhood": 3}
TINY = {
    "standardize": "training",  # few spots
    "embedding": "X_colour",
    "network": stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1),
    "schedule": stp.tl.Schedule(max_epochs=1),
}
METHODS = pytest.mark.parametrize("method", ["average", "ordinal"])


def colour(tiles):
    return tiles.mean((-2, -1))


def phantom(seed=0):
    sdata = stp.datasets.phantom(2, **SMALL, n_null=4, seed=seed)
    stp.pp.normalize(sdata)
    return sdata


def dense(values):
    return np.asarray(values.toarray() if sp.issparse(values) else values)


def shuffled_csr(values, random):
    """The same values as CSR: indices out of order, some zeros stored, some values in two parts."""
    data, indices, indptr = [], [], [0]
    for row in values:
        entries = []
        for column in np.flatnonzero((row != 0) | (random.random(len(row)) < 0.3)):
            if random.random() < 0.3:  # halves of multiples of 0.5 are exact
                entries += [(column, row[column] / 2)] * 2
            else:
                entries.append((column, row[column]))
        random.shuffle(entries)
        indices += [int(column) for column, _ in entries]
        data += [value for _, value in entries]
        indptr.append(len(data))
    matrix = sp.csr_matrix(
        (np.array(data, dtype=float), np.array(indices, dtype=np.int32), np.array(indptr)),
        shape=values.shape,
    )
    matrix.has_sorted_indices = matrix.has_canonical_format = False
    return matrix


# ---- against scipy -------------------------------------------------------------------------


MATRICES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.integers(-4, 4).map(lambda value: value / 2) | st.just(0.0) | st.just(-0.0),
)


@settings(deadline=None, max_examples=150)
@given(MATRICES, st.sampled_from(["average", "ordinal"]), st.booleans(), st.integers(0, 10**6))
def test_every_row_is_ranked_as_scipy_does(values, method, normalize, seed):
    n, k = values.shape
    expected = np.stack([rankdata(row, method=method) for row in values])
    if normalize:
        expected = expected / k
    sparse = shuffled_csr(values, np.random.default_rng(seed))
    before = sparse.copy()
    np.testing.assert_array_equal(sparse.toarray(), values)
    formats = [values, sparse, sp.csr_matrix(values), sp.csc_matrix(values), sp.csr_array(values)]
    for matrix in formats:
        ranked = _rank.rank_rows(matrix, np.arange(k), method=method, normalize=normalize)
        assert ranked.dtype == np.float32
        assert ranked.shape == (n, k)
        np.testing.assert_array_equal(ranked, expected.astype(np.float32))
    for name in ("data", "indices", "indptr"):  # not sorted, not summed under its owner's hands
        np.testing.assert_array_equal(getattr(sparse, name), getattr(before, name))


@settings(deadline=None, max_examples=50)
@given(MATRICES, st.sampled_from(["average", "ordinal"]), st.integers(0, 10**6))
def test_some_columns_are_ranked_among_themselves(values, method, seed):
    random = np.random.default_rng(seed)
    k = values.shape[1]
    columns = np.sort(random.choice(k, random.integers(1, k + 1), replace=False))
    expected = rankdata(values[:, columns], method=method, axis=1)
    for matrix in (values, shuffled_csr(values, random)):
        ranked = _rank.rank_rows(matrix, columns, method=method, normalize=False)
        np.testing.assert_array_equal(ranked, expected)


@METHODS
@pytest.mark.parametrize("block", [1, 25, 10**6])
def test_the_block_size_does_not_matter(monkeypatch, method, block):
    monkeypatch.setattr(_rank, "_BLOCK", block)
    values = np.random.default_rng(0).poisson(0.7, (23, 11)).astype(np.float32)
    for matrix in (values, sp.csr_matrix(values)):
        ranked = _rank.rank_rows(matrix, np.arange(11), method=method, normalize=False)
        np.testing.assert_array_equal(ranked, rankdata(values, method=method, axis=1))


# ---- on tables -----------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("layer", [None, "log1p"])
def test_writes_a_layer(sdata, method, normalize, layer):
    table = sdata.tables["table"]
    before = table.copy()
    stp.pp.rank_expression(sdata, layer=layer, method=method, normalize=normalize)
    ranks = table.layers["ranks"]
    values = dense(table.X if layer is None else table.layers[layer])
    expected = rankdata(values, method=method, axis=1) / (10 if normalize else 1)
    assert isinstance(ranks, np.ndarray)
    assert ranks.dtype == np.float32
    np.testing.assert_array_equal(ranks, expected.astype(np.float32))
    np.testing.assert_array_equal(dense(table.X), dense(before.X))
    np.testing.assert_array_equal(dense(table.layers["log1p"]), dense(before.layers["log1p"]))
    assert read_steps(table).rank_expression["ranks"] == RankStep(
        key_added="ranks", layer=layer, method=method, normalize=normalize, n_genes=10
    )


def test_ranks_among_some_genes_are_sparse(sdata):
    table = sdata.tables["table"]
    names = table.var_names[[7, 2, 5]].tolist()
    stp.pp.rank_expression(sdata, genes=names, key_added="few")
    few = table.layers["few"]
    assert sp.issparse(few)
    assert few.nnz == 3 * table.n_obs
    values = dense(table.layers["log1p"])[:, [2, 5, 7]]
    np.testing.assert_array_equal(dense(few)[:, [2, 5, 7]], rankdata(values, axis=1))
    assert not dense(few)[:, [0, 1, 3, 4, 6, 8, 9]].any()
    record = _provenance.recorded(table, "rank_expression")["few"]
    assert record["genes"] == table.var_names[[2, 5, 7]].tolist()


def test_abundances_of_cell_types_are_ranked(sdata):
    table = sdata.tables["table"]
    random = np.random.default_rng(0)
    table.X = random.dirichlet(np.ones(10), table.n_obs)
    stp.pp.rank_expression(sdata, layer=None, normalize=True)
    ranks = table.layers["ranks"]
    for row in ranks:
        np.testing.assert_allclose(np.sort(row), np.arange(1, 11) / 10)


def test_survives_zarr(sdata, tmp_path):
    stp.pp.rank_expression(sdata, method="ordinal")
    stp.pp.rank_expression(sdata, genes=list(sdata.tables["table"].var_names[:3]), key_added="few")
    table = sdata.tables["table"]
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr").tables["table"]
    for layer in ("ranks", "few"):
        np.testing.assert_array_equal(dense(back.layers[layer]), dense(table.layers[layer]))
        assert read_steps(back).layer(layer) == read_steps(table).layer(layer)
        assert units(back, layer) == units(table, layer)


def test_copy(sdata):
    changed = stp.pp.rank_expression(sdata, copy=True)
    assert "ranks" in changed.tables["table"].layers
    assert "ranks" not in sdata.tables["table"].layers
    assert "rank_expression" not in sdata.tables["table"].uns["stpredict"]
    assert stp.pp.rank_expression(sdata) is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "dense"}, ValueError, "method='dense' is not one of 'average', 'ordinal'"),
        ({"normalize": "yes"}, TypeError, "normalize must be True or False, not str: 'yes'"),
        ({"layer": "counts"}, KeyError, r"layers has no 'counts'; available: .*log1p"),
        ({"key_added": "log1p"}, ValueError, "key_added='log1p' would overwrite the layer"),
        ({"layer": None, "key_added": "log1p"}, ValueError, "or that of stp.pp.normalize"),
        ({"key_added": ""}, ValueError, "key_added='' must be a name of letters"),
        ({"genes": ["ERBB2"]}, KeyError, "1 of 1 genes are not in the table: ERBB2"),
        ({"genes": []}, ValueError, "genes= is empty"),
        ({"genes": "ERBB2"}, TypeError, r"genes='ERBB2' .*\['ERBB2'\]"),
        ({"genes": ["a", "b", "a"]}, ValueError, "genes are not unique, repeated: a"),
    ],
)
def test_bad_input(sdata, options, error, message):
    before = set(sdata.tables["table"].layers)
    with pytest.raises(error, match=message):
        stp.pp.rank_expression(sdata, **options)
    assert set(sdata.tables["table"].layers) == before
    assert "rank_expression" not in sdata.tables["table"].uns["stpredict"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("layer", [None, "log1p"])
def test_nan_is_refused(sdata, bad, layer):
    table = sdata.tables["table"]
    values = dense(table.X if layer is None else table.layers[layer])
    values[3, 4] = bad
    if layer is None:
        table.X = sp.csr_matrix(values)
    else:
        table.layers[layer] = values
    what = "X" if layer is None else r"layers\['log1p'\]"
    with pytest.raises(ValueError, match=f"{what} has 1 values that are NaN or infinite"):
        stp.pp.rank_expression(sdata, layer=layer)
    assert "ranks" not in table.layers
    assert "rank_expression" not in table.uns["stpredict"]


def test_a_missing_layer_is_reported_with_its_call(sdata):
    with pytest.raises(KeyError, match=r"layers has no 'ranks'.*run stp.pp.rank_expression first"):
        open_table(sdata).layer("ranks")


# ---- units, and models of ranks ------------------------------------------------------------


def units(table, layer):
    return units_of(table, layer)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "rank among 10 (ties: average)"),
        ({"method": "ordinal"}, "rank among 10 (ties: ordinal)"),
        ({"normalize": True}, "rank / 10 (ties: average)"),
    ],
)
def test_units(sdata, options, expected):
    stp.pp.rank_expression(sdata, **options)
    assert units(sdata.tables["table"], "ranks") == expected


def test_units_of_other_layers(sdata):
    table = sdata.tables["table"]
    assert units(table, "log1p") == "log(1 + counts per 10,000)"
    assert units(table, "expected") == "expected"
    assert units(table, None) == "counts"
    table.X = table.layers["log1p"].copy()
    assert units(table, None) == "X"


def test_layers_computed_from_each_other_end(sdata):
    stp.pp.rank_expression(sdata, layer="log1p", key_added="a")
    stp.pp.rank_expression(sdata, layer="a", key_added="b")
    _, *steps = read_steps(sdata.tables["table"]).layer("b")
    assert [step.key_added for step in steps] == ["a", "b"]
    stp.pp.rank_expression(sdata, layer="b", key_added="a")
    assert len(read_steps(sdata.tables["table"]).layer("b")) == 2


def fit(sdata, **options):
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    return stp.tl.fit_deepspot(sdata, layer="ranks", context="spot", **TINY, **options)


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        sdata = phantom()
        stp.pp.rank_expression(sdata, normalize=True)
        return fit(sdata, genes=sdata.tables["table"].var_names[:4])


def test_a_model_of_ranks_reports_its_units(model, tmp_path):
    model.save(tmp_path / "ranks")
    loaded = stp.models.load(tmp_path / "ranks")
    assert loaded.units == model.units == "rank / 10 (ties: average)"
    assert loaded.recipe == model.recipe
    assert "rank / 10 (ties: average)" in (tmp_path / "ranks" / "README.md").read_text()


def test_prepare_ranks_measured_values(model):
    new, by_hand = phantom(seed=1), phantom(seed=1)
    for fresh in (new, by_hand):
        del fresh.tables["table"].layers["log1p"]
    stp.pp.prepare(new, model, encoder=colour)
    stp.pp.normalize(by_hand)
    stp.pp.rank_expression(by_hand, normalize=True)
    table, other = new.tables["table"], by_hand.tables["table"]
    np.testing.assert_array_equal(table.layers["ranks"], other.layers["ranks"])
    assert _provenance.recorded(table, "rank_expression") == _provenance.recorded(
        other, "rank_expression"
    )
    stp.tl.predict(new, model)
    record = _provenance.recorded(new.tables["predicted"], "predict")
    assert record["units"] == "rank / 10 (ties: average)"
    scores = stp.tl.evaluate(new)
    assert scores.protocol.layer == "ranks"
    assert scores.protocol.units == record["units"]
    bar = stp.pl.prediction(new, model.genes[0], section="S1")
    labels = [axes.get_ylabel() for axes in bar[-1].child_axes]
    assert "rank / 10 (ties: average)" in labels


def test_other_ranks_are_distinguished(model):
    new = phantom(seed=1)
    stp.pp.prepare(new, model, encoder=colour)
    stp.pp.rank_expression(new)  # not normalised
    stp.tl.predict(new, model)
    predicted = _provenance.recorded(new.tables["predicted"], "predict")["units"]
    assert predicted == "rank / 10 (ties: average)"
    with pytest.raises(ValueError, match=r"holds rank among 10 .* are in rank / 10"):
        stp.tl.evaluate(new)
    protocol = stp.tl.evaluate(new, layer="ranks").protocol
    assert protocol.units == "rank among 10 (ties: average)"


def fewer_genes(sdata, n):
    sdata.tables["table"] = sdata.tables["table"][:, :n].copy()
    return sdata


def test_prepare_logs_that_it_cannot_rank(model, monkeypatch, capsys):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    new = fewer_genes(phantom(seed=1), 9)
    stp.pp.prepare(new, model, encoder=colour)
    assert "training ranked 10 columns, the table has 9" in capsys.readouterr().out
    assert "ranks" not in new.tables["table"].layers
    assert "log1p" in new.tables["table"].layers
    stp.tl.predict(new, model)


def test_prepare_needs_no_counts(model):
    new = fewer_genes(phantom(seed=1), 0)
    stp.pp.prepare(new, model, encoder=colour)
    stp.tl.predict(new, model)
    assert new.tables["predicted"].n_vars == 4


def test_ranks_among_some_genes_are_repeated_among_the_same(monkeypatch, capsys):
    sdata = phantom()
    names = sdata.tables["table"].var_names[[1, 4, 6]].tolist()
    stp.pp.rank_expression(sdata, genes=names)
    model = fit(sdata, genes=names[:2])
    assert model.units == "rank among 3 (ties: average)"
    new = fewer_genes(phantom(seed=1), 8)  # other genes do not matter
    stp.pp.prepare(new, model, encoder=colour)
    values = dense(new.tables["table"].layers["log1p"])[:, [1, 4, 6]]
    ranks = dense(new.tables["table"].layers["ranks"])
    np.testing.assert_array_equal(ranks[:, [1, 4, 6]], rankdata(values, axis=1))
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    lacking = fewer_genes(phantom(seed=1), 5)
    stp.pp.prepare(lacking, model, encoder=colour)
    said = capsys.readouterr().out
    assert f"1 of 3 genes are not in the table: {names[2]}" in said
    assert "ranks" not in lacking.tables["table"].layers


def test_genes_without_a_rank_are_not_fitted():
    sdata = phantom()
    names = sdata.tables["table"].var_names[[1, 4, 6]].tolist()
    other = sdata.tables["table"].var_names[0]
    stp.pp.rank_expression(sdata, genes=names)
    with pytest.raises(ValueError, match=f"1 of 2 genes have no rank in .*ranks 3 genes: {other}"):
        fit(sdata, genes=[other, names[0]])


def test_counts_are_not_needed_where_the_layer_has_another_source(monkeypatch, capsys):
    sdata = phantom()
    stp.pp.rank_expression(sdata, layer="expected")
    model = fit(sdata, genes=sdata.tables["table"].var_names[:2])
    assert all(step.name != "normalize" for step in model.recipe.layer_steps)
    new = phantom(seed=1)
    del new.tables["table"].layers["expected"]
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    stp.pp.prepare(new, model, encoder=colour)
    assert "layers has no 'expected'" in capsys.readouterr().out
