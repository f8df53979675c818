"""The split ladder: planted leaks are priced in order, honest splits are free, rungs are marked."""

from __future__ import annotations

import functools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.sparse as sp

import stpredict as stp
from stpredict import results
from stpredict._sdata._spot_table import copy_of, open_table
from stpredict.tl._crossval._rungs import splits_of
from stpredict.tl._fitting._split import block_labels

N_GENES = 6
CELL_UM = 80.0  # narrower than the buffer of 100 µm


@pytest.fixture(scope="module")
def empty_sections():
    """Four sections of two patients, whose table is replaced."""
    sdata = stp.datasets.phantom(
        4, size_px=900, mpp=0.5, pitch_um=40.0, n_morphology=N_GENES, n_neighborhood=0, n_null=0,
        n_patients=2,
    )  # fmt: skip
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, genes=sdata["table"].var_names.tolist())
    stp.pp.neighbors(sdata)
    return sdata


def planted(sdata, *, place=0.0, section=0.0, patient=0.0, seed=0):
    """Expression of a shared feature, and of what the picture encodes about its origin.

    ``place`` is the strength of a value per small cell of tissue, and the features recognise the
    cell; ``section`` and ``patient`` are those of an effect of tissue that differs between sections
    and patients, which the features recognise, too.
    """
    random, sdata = np.random.default_rng(seed), copy_of(sdata)
    spots, table = open_table(sdata), sdata["table"]
    n = table.n_obs
    common = random.normal(size=(n, 2))
    features = [common]
    values = common @ random.normal(size=(2, N_GENES))
    variable = random.normal(size=(n, 2))
    for strength, labels in (
        (section, spots.section_of_row),
        (patient, table.obs["patient"].astype(str).to_numpy()),
    ):
        for name in np.unique(labels):
            recognised = variable * (labels == name)[:, None]
            features.append(recognised)
            values += strength * recognised @ random.normal(size=(2, N_GENES))
    for rows in spots.section_rows.values():
        corner = np.floor(spots.positions_um[rows] / CELL_UM).astype(int)
        cells = np.unique(corner, axis=0, return_inverse=True)[1].ravel()
        inside = np.zeros((n, cells.max() + 1))
        inside[rows, cells] = 1.0
        features.append(inside)
        values += place * inside @ random.normal(size=(inside.shape[1], N_GENES))
    values += 0.7 * random.normal(size=values.shape)
    table.layers["log1p"] = sp.csr_matrix((values - values.min()).astype(np.float32))
    table.obsm["planted"] = np.concatenate(features, axis=1).astype(np.float32)
    stp.pp.register_embedding(sdata, "planted", encoder="planted", tile_um=40.0)
    return sdata


ridge = functools.partial(
    stp.tl.fit_ridge, embedding="planted", context="spot", alpha=1.0, scaling="none"
)


@pytest.fixture(scope="module")
def leaking(empty_sections):
    """The ladder of sections with all three leaks."""
    sdata = planted(empty_sections, place=1.5, section=1.0, patient=1.0)
    return sdata, stp.tl.split_ladder(sdata, ridge, n_folds=3)


def never(sdata):
    raise AssertionError("was called before the checks were done")


def test_planted_leaks_order_the_rungs_and_have_a_price(leaking):
    _, ladder = leaking
    assert [rung.name for rung in ladder.rungs] == list(ladder.table.columns)
    pcc = ladder.by_section().mean()
    assert pcc.is_monotonic_decreasing
    prices = ladder.prices()
    assert list(prices) == ["neighbouring spots", "the section", "the patient"]
    for price in prices.values():
        assert price.difference > 0.05
        assert price.low > 0
        assert str(price).startswith("LEAKY: ")


@pytest.mark.parametrize("leak", ["", "neighbouring spots", "the section"])
def test_only_the_planted_leak_has_a_price(empty_sections, leak):
    strength = {"neighbouring spots": "place", "the section": "section"}
    sdata = planted(empty_sections, **({strength[leak]: 2.0} if leak else {}))
    ladder = stp.tl.split_ladder(sdata, ridge, n_folds=3)
    differences = {name: price.difference for name, price in ladder.prices().items()}
    assert ladder.by_section().mean().max() > 0.6
    if leak:
        assert differences.pop(leak) > 0.2
    assert max(map(abs, differences.values())) < 0.1


def test_a_leaky_rung_is_marked_wherever_it_is_shown(leaking):
    _, ladder = leaking
    assert [rung.leaky for rung in ladder.rungs] == [True, True, True, False]
    summary = ladder.summary()
    assert list(summary.index) == [
        "random_spots (LEAKY: neighbouring spots, the section, the patient)",
        "blocks (LEAKY: the section, the patient)",
        "sections (LEAKY: the patient)",
        "patients",
    ]
    assert summary["leaky"].tolist() == [True, True, True, False]
    assert not ladder.leaky
    assert repr(ladder).count("LEAKY") == 6
    assert "neighbouring spots: LEAKY: random_spots - blocks = +" in repr(ladder)


@pytest.mark.parametrize("name", ["random_spots", "blocks"])
def test_scores_are_those_of_models_fitted_and_scored_by_hand(leaking, name):
    sdata, ladder = leaking
    spots = open_table(sdata)
    folds, _ = splits_of(spots, n_folds=3, seed=0)[0][name]
    predicted = np.full(spots.table.shape, np.nan)
    for fold in folds:
        model = ridge(spots.subset(fold.training).sdata)
        test = spots.subset(fold.visible)
        stp.tl.predict(test.sdata, model)
        inside = np.isin(fold.visible, fold.rows)
        columns = spots.table.var_names.get_indexer(model.genes)
        predicted[np.ix_(fold.rows, columns)] = test.sdata["predicted"].X[inside]
    blocks = block_labels(spots, 3)
    for (section, block), expected in ladder.table[name].groupby(level=["section", "block"]):
        rows = np.flatnonzero((spots.section_of_row == section) & (blocks == block))
        columns = spots.table.var_names.get_indexer(expected.index.get_level_values("gene"))
        measured = spots.table.layers["log1p"].toarray()[np.ix_(rows, columns)]
        pcc = stp.metrics.pcc(measured, predicted[np.ix_(rows, columns)])
        np.testing.assert_allclose(expected, pcc, atol=1e-5)


def test_blocks_are_apart_from_training_and_leave_as_many_spots_as_other_rungs(leaking):
    sdata, ladder = leaking
    spots = open_table(sdata)
    sizes = {rung.name: rung.n_training for rung in ladder.rungs}
    assert sizes["blocks"] == pytest.approx(sizes["random_spots"], rel=0.15)
    folds, _ = splits_of(spots, n_folds=3, seed=0)[0]["blocks"]
    for fold in folds:
        for section, rows in spots.section_rows.items():
            test, training = np.intersect1d(rows, fold.rows), np.intersect1d(rows, fold.training)
            if not len(test):
                assert len(training) == len(rows), section  # whole sections remain
                continue
            difference = spots.positions_um[test][:, None] - spots.positions_um[training][None]
            assert np.abs(difference).max(axis=-1).min() >= fold.buffer_um
            seen = np.setdiff1d(np.intersect1d(rows, fold.visible), test)
            difference = spots.positions_um[seen][:, None] - spots.positions_um[training][None]
            assert len(seen)
            assert np.abs(difference).max(axis=-1).min() >= 40  # the side of a tile


def test_random_spots_see_the_images_of_their_neighbours_only_there(leaking):
    spots = open_table(leaking[0])
    splits, _ = splits_of(spots, n_folds=4, seed=0)
    for name, (folds, _) in splits.items():
        rows = np.concatenate([fold.rows for fold in folds])
        assert sorted(rows) == list(range(spots.table.n_obs))
        for fold in folds:
            n_seen = {"random_spots": spots.table.n_obs}.get(name)
            assert n_seen is None or len(fold.visible) == n_seen
            if name in ("sections", "patients"):
                assert fold.visible is None
            elif name == "blocks":
                assert not set(fold.visible) & set(fold.training)
            assert not set(fold.rows) & set(fold.training)


def test_sections_left_out_together_leave_their_patients_in_training(empty_sections):
    spots = open_table(empty_sections)
    folds, shared = splits_of(spots, n_folds=2, seed=0)[0]["sections"]
    patient = spots.table.obs["patient"].astype(str).to_numpy()
    assert shared == ("the patient",)
    for fold in folds:
        assert set(patient[fold.rows]) <= set(patient[fold.training])


# ---- rungs that the data do not allow ---------------------------------------------------------


def rungs(sdata):
    splits, impossible = splits_of(open_table(sdata), n_folds=4, seed=0)
    return {name: shared for name, (_, shared) in splits.items()}, impossible


def test_rungs_that_the_data_do_not_allow_have_reasons(empty_sections):
    spots = open_table(empty_sections)
    one = spots.subset(spots.section_rows["S1"]).sdata
    assert rungs(one)[1] == {
        "sections": "there is a single section",
        "patients": "all sections are of one patient",
    }
    sdata = copy_of(empty_sections)
    sdata["table"].obs["patient"] = "P1"
    possible, impossible = rungs(sdata)
    assert possible["sections"] == ("the patient",)
    assert impossible == {"patients": "all sections are of one patient"}
    sdata["table"].obs["patient"] = open_table(sdata).section_of_row
    assert rungs(sdata)[1] == {"sections": "every patient has a single section"}
    del sdata["table"].obs["patient"]
    possible, impossible = rungs(sdata)
    assert possible["sections"] == ("perhaps the patient, not recorded",)
    assert impossible == {"patients": "obs has no column 'patient'"}


def test_a_single_section_is_compared_over_its_blocks(empty_sections):
    sdata = planted(empty_sections, place=3.0)
    spots = open_table(sdata)
    one = spots.subset(spots.section_rows["S1"]).sdata
    ladder = stp.tl.split_ladder(one, ridge, n_folds=3)
    (price,) = ladder.prices().values()
    assert price.n_groups == 3
    assert ladder.leaky
    assert "sections: not possible, there is a single section" in repr(ladder)
    assert list(one.tables) == ["table"]


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("ridge", {}, TypeError, "method"),
        (never, {"n_folds": 1}, ValueError, "n_folds must be .* at least 2: 1"),
        (never, {"n_folds": 90}, ValueError, "has blocks of a single spot: use a smaller n_folds="),
        (never, {"seed": -1}, ValueError, "seed must be"),
        (lambda _: None, {}, ValueError, r"the method failed without part 0:\n"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(empty_sections, method, options, error, message):
    with pytest.raises(error, match=message):
        stp.tl.split_ladder(empty_sections, method, **options)
    assert list(empty_sections.tables) == ["table"]


# ---- picture ---------------------------------------------------------------------------------


def test_the_picture_names_leaks_and_prices(leaking, tmp_path):
    _, ladder = leaking
    ax = stp.pl.split_ladder(ladder, save=tmp_path / "ladder.png")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    first = "random spots LEAKY: shares neighbouring spots, the section, the patient"
    assert labels[0].replace("\n", " ") == first
    assert labels[-1] == "patients\nnothing shared"
    texts = " ".join(text.get_text() for text in ax.texts)
    for what, price in ladder.prices().items():
        assert f"{price.difference:+.3f} [{price.low:+.3f}" in texts
        assert f"for sharing {what}" in texts
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
    plt.close("all")
    assert isinstance(ladder, results.SplitLadder)
