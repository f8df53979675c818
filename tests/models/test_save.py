"""Models on disk: complete or absent, checked, and never unpickled."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

import stpredict as stp
from stpredict import uncertainty
from stpredict._sdata._recipe import Recipe
from stpredict._sdata._steps import EmbedStep, NeighborsStep, NormalizeStep, TilesStep
from stpredict.models import Model, _save
from stpredict.models._config import Config
from stpredict.models._methods import CNN, DEEPSPOT
from stpredict.models._records import (
    CNNNetwork,
    DeepSpotNetwork,
    Hyperparameters,
    TrainingRecord,
)
from stpredict.targets import Standard
from stpredict.targets import fit as fit_targets
from stpredict.training import Schedule

D, GENES = 5, ("ERBB2", "GNAS", "MUC1")
REQUIRED = {each.name for each in fields(Config)} - {"format", "format_version", "calibration"}
FILES = {"config.json", "model.safetensors", "history.csv", "README.md"}


def model_of(seed=0, context="spot_subspot_neighbors"):
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = DeepSpotNetwork(n_hidden=8, n_phi=3, n_rho=2, n_networks=1)
    targets = random.normal(2, 1, (20, 3))
    targets[:, 1] = 4.0
    return Model(
        method="deepspot",
        network=DEEPSPOT.build(D, len(GENES), context=context, options=network).eval(),
        genes=GENES,
        context=context,
        hyperparameters=Hyperparameters(
            network=network,
            schedule=Schedule(
                max_epochs=3, patience=2, batch_size=8, learning_rate=1e-4, weight_decay=0.0
            ),
            loss="mse",
        ),
        recipe=Recipe(
            layer="log1p",
            layer_steps=(NormalizeStep(target_sum=10000.0),),
            embedding="X_texture",
            embed=EmbedStep(
                encoder="texture", weights_hash="0" * 64, tile_um=112.0, mpp=0.5, n_subtiles=3
            ),
            neighbors=NeighborsStep(grid="hexagonal", n_rings=1) if "neigh" in context else None,
        ),
        training=TrainingRecord(
            sections=("S1", "S2"),
            groups=("P1", "P2"),
            held_out="patient P2",
            n_spots=40,
            n_held_out=21,
            best_epochs=(1,),
            seed=seed,
            versions={"torch": torch.__version__},
        ),
        units="log(1 + counts per 10,000)",
        inputs=Standard.fit(random.normal(1, 2, (20, D))),
        targets=fit_targets("genes", targets, columns=range(len(GENES))),
        history=pd.DataFrame(
            {
                "network": [1, 1, 1, 1],
                "epoch": [0, 0, 1, 1],
                "step": [1, 1, 2, 2],
                "split": ["training", "validation"] * 2,
                "loss": [1.0, 1 / 3, 0.1, 2.0**-40],
            }
        ),
        subtiles=Standard.fit(random.normal(1, 9, (20, D))) if "subspot" in context else None,
    )


def arrays(seed=1):
    random = np.random.default_rng(seed)
    return {
        "center": random.normal(size=(11, D)).astype(np.float32),
        "subtiles": random.normal(size=(11, 9, D)).astype(np.float32),
        "neighbors": random.normal(size=(11, 6, D)).astype(np.float32),
        "neighbor_mask": random.random((11, 6)) < 0.7,
    }


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    model_of().save(path)
    return path


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if value is None:
            del config[name]
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_saved_model_is_loaded_unchanged(folder):
    model, loaded = model_of(), stp.models.load(folder)
    for name in ("method", "genes", "context", "hyperparameters", "recipe", "training", "units"):
        assert getattr(loaded, name) == getattr(model, name), name
    for name, weights in model.network.state_dict().items():
        assert torch.equal(weights, loaded.network.state_dict()[name]), name
    for scaling in ("inputs", "targets.standard", "subtiles"):
        for name in ("mean", "scale"):
            before, after = (attrgetter(f"{scaling}.{name}")(m) for m in (model, loaded))
            np.testing.assert_array_equal(before, after, strict=True)
    pd.testing.assert_frame_equal(model.history, loaded.history, rtol=1e-12)
    assert not loaded.network.training


def test_fresh_process_predicts_bit_identically(tmp_path):
    contexts = ("spot", "spot_subspot_neighbors")
    models = {context: model_of(context=context) for context in contexts}
    used = {"spot": {"center": arrays()["center"]}, "spot_subspot_neighbors": arrays()}
    for context in contexts:
        models[context].save(tmp_path / context)
        np.savez(tmp_path / f"{context}.npz", **used[context])
    code = (
        "import sys, numpy as np, stpredict as stp\n"
        "for folder in sys.argv[1:]:\n"
        "    model = stp.models.load(folder)\n"
        "    with np.load(f'{folder}.npz') as arrays:\n"
        "        predicted = model.predict_array(**arrays, device='cpu')\n"
        "    np.save(f'{folder}.npy', predicted)\n"
    )
    folders = [tmp_path / context for context in contexts]
    subprocess.run([sys.executable, "-c", code, *folders], check=True)
    for context in contexts:
        predicted = models[context].predict_array(**used[context], device="cpu")
        stored = np.load(tmp_path / f"{context}.npy")
        np.testing.assert_array_equal(stored, predicted, strict=True)


def test_folder_has_the_documented_files(folder):
    assert {path.name for path in folder.iterdir()} == FILES
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["format"] == "stpredict model"
    assert config["format_version"] == 5
    assert config["stpredict_version"]
    assert config["method"] == "deepspot"
    assert config["genes"] == list(GENES)
    assert config["units"] == "log(1 + counts per 10,000)"
    assert config["hyperparameters"]["network"]["n_phi"] == 3
    assert config["recipe"]["embed"]["tile_um"] == 112.0
    assert config["recipe"]["embed"]["weights_hash"]
    assert config["recipe"]["neighbors"]["grid"] == "hexagonal"
    assert config["training"]["sections"] == ["S1", "S2"]
    assert config["training"]["groups"] == ["P1", "P2"]
    assert config["training"]["versions"]


def test_model_card_describes_the_model(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    for fact in (
        "deepspot: 3 genes",
        "ERBB2",
        "log(1 + counts per 10,000)",
        "encoder: texture",
        "112 µm",
        "3 × 3 sub-tiles",
        "hexagonal",
        "S1, S2 (40 spots)",
        "patient P2 (21 spots)",
        "DeepSpot: leveraging spatial context",
        "stp.pp.prepare(sdata, model)",
    ):
        assert fact in card


def pixels_of(backbone):
    options = CNNNetwork(backbone, tile_px=16)
    return replace(
        model_of(context="spot"),
        method="cnn",
        network=CNN.build(0, len(GENES), context="spot", options=options).eval(),
        hyperparameters=Hyperparameters(network=options, average_symmetries=True),
        recipe=Recipe("log1p", tiles=TilesStep(tile_um=50.0, tile_px=16)),
        inputs=None,
    )


def test_model_on_pixels_needs_no_scaling_of_embeddings(tmp_path):
    model = pixels_of("small")
    model.save(tmp_path / "cnn")
    loaded = stp.models.load(tmp_path / "cnn")
    assert loaded.inputs is None
    assert loaded.hyperparameters == model.hyperparameters
    tiles = np.random.default_rng(0).integers(0, 255, (3, 3, 16, 16), dtype=np.uint8)
    np.testing.assert_array_equal(
        loaded.predict_array(tiles, device="cpu"), model.predict_array(tiles, device="cpu")
    )


def test_numbers_of_numpy_are_saved_as_plain_numbers(tmp_path):
    model = model_of()
    training = replace(model.training, seed=np.int64(5), n_spots=np.int32(40))
    replace(model, training=training).save(tmp_path / "model")
    assert stp.models.load(tmp_path / "model").training.seed == 5


@pytest.mark.parametrize("seed", [1.0, True, {1}])
def test_values_that_could_not_be_loaded_are_not_saved(folder, seed):
    model = model_of()
    broken = replace(model, training=replace(model.training, seed=seed))
    with pytest.raises((TypeError, ValueError), match=r"seed|no value of JSON"):
        broken.save(folder)
    assert stp.models.load(folder).training.seed == 0
    assert {path.name for path in folder.iterdir()} == FILES


def test_missing_parent_folders_are_created(tmp_path):
    model_of().save(f"{tmp_path}/a/b/model")
    assert stp.models.load(f"{tmp_path}/a/b/model").genes == GENES


def test_files_can_be_read_by_those_who_can_read_other_files_of_the_user(tmp_path):
    model_of().save(tmp_path / "model")
    (tmp_path / "other").write_text("")
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}


class Killed(BaseException):
    """End of the process."""


def limit_calls(patch, n_calls):
    """Let n calls that change the disk succeed, and raise at all others."""
    remaining = iter(range(n_calls))

    def limited(function):
        def call(*arguments, **options):
            if next(remaining, None) is None:
                raise Killed
            return function(*arguments, **options)

        return call

    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "write_text", "chmod"):
        patch.setattr(Path, name, limited(getattr(Path, name)))
    patch.setattr(_save, "save_file", limited(save_file))


class TestSavingIsAtomic:
    def test_older_model_is_replaced(self, folder):
        model_of(seed=7).save(folder)
        assert stp.models.load(folder).training.seed == 7
        assert {path.name for path in folder.iterdir()} == FILES
        assert list(folder.parent.iterdir()) == [folder]

    def test_own_files_in_the_folder_are_kept(self, folder):
        (folder / "notes.txt").write_text("mine")
        (folder / "scores").mkdir()
        (folder / "scores" / "config.json").write_text("mine")
        model_of(seed=7).save(folder)
        assert stp.models.load(folder).training.seed == 7
        assert (folder / "notes.txt").read_text() == "mine"
        assert (folder / "scores" / "config.json").read_text() == "mine"

    def test_model_behind_a_link_is_replaced(self, folder):
        link = folder.parent / "link"
        link.symlink_to(folder)
        model_of(seed=7).save(link)
        assert link.is_symlink()
        assert stp.models.load(link).training.seed == 7
        assert stp.models.load(folder).training.seed == 7
        assert set(folder.parent.iterdir()) == {folder, link}

    def test_link_to_a_missing_folder_is_refused(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "absent")
        with pytest.raises(FileExistsError, match="link is a link to a missing folder"):
            model_of().save(tmp_path / "link")
        assert not (tmp_path / "absent").exists()

    def test_empty_folder_is_filled(self, tmp_path):
        model_of(seed=7).save(tmp_path)
        assert stp.models.load(tmp_path).training.seed == 7

    def test_folder_in_the_place_of_a_file_is_refused(self, folder):
        (folder / "README.md").unlink()
        (folder / "README.md").mkdir()
        with pytest.raises(FileExistsError, match=r"README\.md cannot be written"):
            model_of(seed=7).save(folder)
        assert stp.models.load(folder).training.seed == 0
        assert {path.name for path in folder.iterdir()} == FILES

    @pytest.mark.parametrize("path", [3, None, b"model"])
    def test_path_of_another_type_is_refused(self, path):
        with pytest.raises(TypeError, match="path must be a string or a path"):
            model_of().save(path)
        with pytest.raises(TypeError, match="path must be a string or a path"):
            stp.models.load(path)

    @pytest.mark.parametrize("existed", [True, False])
    def test_a_kill_at_any_moment_leaves_the_old_or_the_new_model(
        self, tmp_path, monkeypatch, existed
    ):
        """Every system call that changes the disk is the last one, in turn."""
        seeds = set()
        for n_calls in range(40):
            path = tmp_path / str(n_calls) / "model"
            if existed:
                model_of(seed=1).save(path)
            with monkeypatch.context() as patch:
                patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing
                limit_calls(patch, n_calls)
                with suppress(Killed):
                    model_of(seed=2).save(path)
            if existed or (path / ".saved").exists() or (path / "config.json").exists():
                seeds.add(stp.models.load(path).training.seed)
            model_of(seed=3).save(path)
            assert stp.models.load(path).training.seed == 3
            assert {each.name for each in path.iterdir()} == FILES
            assert list(path.parent.iterdir()) == [path]
        assert seeds == ({1, 2} if existed else {2})

    @pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"config.json": "{}"}])
    def test_folder_that_is_not_a_model_is_not_changed(self, tmp_path, content):
        foreign = tmp_path / "mine"
        foreign.mkdir()
        for name, text in content.items():
            (foreign / name).write_text(text)
        with pytest.raises(FileExistsError, match="mine exists and is not an stpredict model"):
            model_of().save(foreign)
        assert {path.name: path.read_text() for path in foreign.iterdir()} == content
        assert list(tmp_path.iterdir()) == [foreign]

    def test_file_is_not_changed(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match=r"notes\.txt exists"):
            model_of().save(tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("fails", ["save_file", "card", "_tensors"])
    @pytest.mark.parametrize("existed", [True, False])
    def test_nothing_changes_if_writing_fails(self, tmp_path, monkeypatch, fails, existed):
        path = tmp_path / "model"
        if existed:
            model_of(seed=1).save(path)

        def disk_full(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr(_save, fails, disk_full)
        with pytest.raises(OSError, match="no space left"):
            model_of(seed=2).save(path)
        assert list(tmp_path.iterdir()) == ([path] if existed else [])
        if existed:
            assert stp.models.load(path).training.seed == 1

    def test_older_model_stays_if_moving_fails(self, folder, monkeypatch):
        def refuse(self, target):
            raise OSError("device or resource busy")

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="busy"):
            model_of(seed=2).save(folder)
        assert stp.models.load(folder).training.seed == 0
        assert list(folder.parent.iterdir()) == [folder]


class TestLoadingChecks:
    def refused(self, folder, message):
        with pytest.raises(ValueError, match=message) as error:
            stp.models.load(folder)
        assert str(folder) in str(error.value)

    def test_missing_folder_is_reported(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no model at .*absent"):
            stp.models.load(tmp_path / "absent")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "history.csv"])
    def test_missing_file_is_refused(self, folder, name):
        (folder / name).unlink()
        self.refused(folder, f"it lacks {re.escape(name)}")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "history.csv"])
    @pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
    def test_truncated_file_is_refused(self, folder, name, share):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])
        if name == "history.csv" and share:
            # a number that is cut is indistinguishable from another one
            stp.models.load(folder)
        else:
            self.refused(folder, "cannot be read")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_random_bytes_are_refused(self, folder, name):
        (folder / name).write_bytes(np.random.default_rng(0).bytes(2000))
        self.refused(folder, "cannot be read")

    @pytest.mark.parametrize(
        "text",
        [
            "a,b\n1,2\n",
            "epoch,step,split,loss\n0,1,training,low\n",
            "epoch,step,split,loss\n0.5,1,training,1\n",
            "epoch,step,split,loss\n0,,training,1\n",
            "epoch,step,split,loss\n0,1,trial,1\n",
            "epoch,step,split,loss\n-1,1,training,1\n",
            "epoch,step,split,loss\n0,1,training,1,7\n",
        ],
    )
    def test_other_history_is_refused(self, folder, text):
        (folder / "history.csv").write_text(text)
        self.refused(folder, r"history\.csv ")

    @pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "another model"}'])
    def test_other_configuration_is_refused(self, folder, text):
        (folder / "config.json").write_text(text)
        self.refused(folder, "does not describe an stpredict model")

    def test_other_folder_is_refused(self, tmp_path):
        (tmp_path / "weights.bin").write_bytes(b"x")
        self.refused(tmp_path, r"not a complete model: it lacks config\.json")

    def test_newer_format_is_refused(self, folder):
        edit(folder, format_version=6, stpredict_version="9.1")
        self.refused(folder, r"version is 6.*reads 2 to 5.*stpredict 9\.1: upgrade")

    def test_format_1_is_refused(self, folder):
        edit(folder, format_version=1, stpredict_version="0.1")
        self.refused(folder, r"version is 1, .*reads 2 to 5.*stpredict 0\.1: fit it again")

    @pytest.mark.parametrize("version", ["1", 1.5, [], None])
    def test_invalid_version_is_refused(self, folder, version):
        edit(folder, format_version=version)
        self.refused(folder, "format version")

    @pytest.mark.parametrize("field", sorted(REQUIRED))
    @pytest.mark.parametrize("value", [None, 3])
    def test_missing_or_mistyped_field_is_refused(self, folder, field, value):
        edit(folder, **{field: value})
        self.refused(folder, field)

    @pytest.mark.parametrize(
        "place",
        [
            (),
            ("hyperparameters",),
            ("hyperparameters", "network"),
            ("hyperparameters", "schedule"),
            ("recipe",),
            ("recipe", "embed"),
            ("training",),
        ],
    )
    def test_unknown_field_is_refused(self, folder, place):
        config = json.loads((folder / "config.json").read_text())
        part = config
        for name in place:
            part = part[name]
        part["surprise"] = 1
        edit(folder, **config)
        self.refused(folder, "surprise: Unexpected")

    def test_unknown_method_is_refused(self, folder):
        edit(folder, method="clairvoyance")
        self.refused(folder, "method='clairvoyance' is not one of 'deepspot'")

    def test_unknown_context_is_refused(self, folder):
        edit(folder, context="galaxy")
        self.refused(folder, "context='galaxy' is not one of 'spot'")

    @pytest.mark.parametrize("genes", [[], [1, 2, 3]])
    def test_invalid_genes_are_refused(self, folder, genes):
        edit(folder, genes=genes)
        self.refused(folder, "genes")

    def test_more_genes_than_weights_are_refused(self, folder):
        edit(folder, genes=[*GENES, "TP53"])
        self.refused(folder, "cannot be read")

    @pytest.mark.parametrize(
        ("part", "name"),
        [
            ("training", "sections"),
            ("training", "held_out"),
            ("training", "seed"),
            ("hyperparameters", "network"),
            ("recipe", "embedding"),
            ("recipe", "embed"),
            ("recipe", "neighbors"),
        ],
    )
    def test_missing_name_in_a_record_is_refused(self, folder, part, name):
        values = json.loads((folder / "config.json").read_text())[part]
        del values[name]
        edit(folder, **{part: values})
        self.refused(folder, f"{part}.*{name}")

    def test_options_of_another_method_are_refused(self, folder):
        edit(folder, hyperparameters={"network": {"backbone": "small"}})
        self.refused(folder, "backbone: Unexpected")

    def test_network_options_for_a_method_without_any_are_refused(self, folder):
        edit(folder, method="ridge")
        self.refused(folder, r"hyperparameters\.network is not used for method='ridge'")

    @pytest.mark.parametrize(
        ("tensor", "shape"),
        [
            ("network.phi.weight", (2, 2)),
            ("inputs.mean", (D + 1,)),
            ("inputs.scale", (D + 1,)),
            ("subtiles.mean", (D + 1,)),
            ("targets.mean", (1, 3)),
            ("targets.scale", (2,)),
        ],
    )
    def test_tensor_of_another_shape_is_refused(self, folder, tensor, shape):
        tensors = load_file(folder / "model.safetensors")
        tensors[tensor] = np.ones(shape, np.float32)
        save_file(tensors, folder / "model.safetensors")
        self.refused(folder, "cannot be read")

    def test_every_tensor_is_required(self, folder):
        tensors = load_file(folder / "model.safetensors")
        for name in tensors:
            save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors")
            self.refused(folder, re.escape(re.sub(r"^(network|targets)\.", "", name)))

    def test_scaling_that_is_not_finite_is_refused(self, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["targets.mean"][0] = np.nan
        save_file(tensors, folder / "model.safetensors")
        self.refused(folder, "finite")


def calibration_of_three_groups():
    """Learnt on random numbers."""
    random = np.random.default_rng(0)
    groups = np.repeat(["P1", "P2", "P3"], 40)
    predicted = random.normal(size=(120, 3))
    measured = predicted + random.normal(size=(120, 3))
    names, coverage = uncertainty.coverage_by_group(measured, predicted, groups, level=0.9)
    return uncertainty.Calibration(
        method="deep",
        groups=names,
        intervals=uncertainty.conformal(measured, predicted, groups, level=0.9),
        coverage=coverage,
        reliability=uncertainty.reliable(
            measured, predicted, random.random((120, 2)), sections=groups, groups=groups
        ),
        familiarity=uncertainty.Familiarity.fit(random.normal(size=(120, D)), groups),
        section_rule=uncertainty.SectionRule(
            0.05, np.float32([0.2, 0.5, 0.6]), np.float32([1.5, 1.25, 1])
        ),
    )


#: Invalid values of the configuration, by their place.
INVALID = {
    ("genes",): ["A", "B", "A"],
    ("units",): None,
    ("hyperparameters", "network", "n_hidden"): True,
    ("hyperparameters", "network", "n_phi"): 3.0,
    ("hyperparameters", "network", "n_rho"): "2",
    ("hyperparameters", "network", "dropout"): 1.0,
    ("hyperparameters", "schedule", "max_epochs"): 0,
    ("hyperparameters", "schedule", "learning_rate"): float("inf"),
    ("hyperparameters", "average_symmetries"): 1,
    ("recipe",): [],
    ("recipe", "layer_steps"): [3],
    ("recipe", "layer_steps", 0): {"step": ["normalize"]},
    ("recipe", "layer_steps", 0, "target_sum"): float("nan"),
    ("recipe", "embed", "tile_um"): -112.0,
    ("recipe", "embed", "mpp"): "0.5",
    ("recipe", "embed", "n_subtiles"): 10**9,
    ("recipe", "neighbors", "n_rings"): 10**9,
    ("training", "n_spots"): -1,
    ("training", "best_epochs"): [1.5],
    ("training", "seed"): None,
    ("training", "sections"): "S1",
    ("training", "versions"): {"torch": 2},
    ("training", "before"): {},
}


class TestInvalidValues:
    refused = TestLoadingChecks.refused

    @pytest.mark.parametrize("place", list(INVALID), ids=lambda place: ".".join(map(str, place)))
    def test_invalid_value_is_refused_by_name(self, folder, place):
        config = json.loads((folder / "config.json").read_text())
        part = config
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = INVALID[place]
        (folder / "config.json").write_text(json.dumps(config))
        self.refused(folder, str([name for name in place if isinstance(name, str)][-1]))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("network.phi.weight", np.nan),
            ("network.rho.bias", np.inf),
            ("inputs.scale", -1.0),
            ("subtiles.scale", -1.0),
            ("subtiles.mean", np.inf),
            ("targets.scale", -1.0),
        ],
    )
    def test_invalid_numbers_in_arrays_are_refused(self, folder, name, value):
        tensors = load_file(folder / "model.safetensors")
        tensors[name].flat[0] = value
        save_file(tensors, folder / "model.safetensors")
        self.refused(folder, "finite|negative|infinite")

    @pytest.mark.parametrize("name", ["network.phi.weight", "inputs.mean", "targets.mean"])
    @pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
    def test_arrays_of_another_type_are_refused(self, folder, name, dtype):
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = tensors[name].astype(dtype)
        save_file(tensors, folder / "model.safetensors")
        self.refused(folder, f"{name.split('.', 1)[1]} .*expected|F16|is needed")

    def test_unexpected_weights_are_refused(self, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["network.extra"] = tensors["inputs.mean"]
        save_file(tensors, folder / "model.safetensors")
        self.refused(folder, "have unexpected extra")

    @pytest.mark.parametrize("option", ["n_hidden", "n_phi", "n_rho"])
    def test_sizes_are_compared_before_memory_is_allocated(self, folder, monkeypatch, option):
        config = json.loads((folder / "config.json").read_text())
        config["hyperparameters"]["network"][option] = 10**6 if option == "n_hidden" else 255
        (folder / "config.json").write_text(json.dumps(config))
        refuse_large_tensors(monkeypatch)
        self.refused(folder, "the configuration gives")

    def test_large_backbones_are_compared_before_memory_is_allocated(self, tmp_path, monkeypatch):
        pixels_of("small").save(tmp_path / "cnn")
        config = json.loads((tmp_path / "cnn" / "config.json").read_text())
        config["hyperparameters"]["network"]["backbone"] = "vit_large_patch16_224"
        (tmp_path / "cnn" / "config.json").write_text(json.dumps(config))
        refuse_large_tensors(monkeypatch)
        self.refused(tmp_path / "cnn", r"has 303,\d+,\d+ weights, but \d+,\d+ are saved")

    def test_unknown_backbone_is_refused(self, tmp_path):
        pixels_of("small").save(tmp_path / "cnn")
        config = json.loads((tmp_path / "cnn" / "config.json").read_text())
        config["hyperparameters"]["network"]["backbone"] = "resnet19"
        (tmp_path / "cnn" / "config.json").write_text(json.dumps(config))
        self.refused(tmp_path / "cnn", r"No backbone 'resnet19'.*timm\.list_models\(\)\.$")

    def test_other_size_of_tiles_is_refused(self, tmp_path):
        pixels_of("small").save(tmp_path / "cnn")
        edit(tmp_path / "cnn", recipe={"layer": "log1p", "tiles": {"tile_um": 50.0, "tile_px": 32}})
        self.refused(tmp_path / "cnn", "differ in tile_px")

    def test_negative_variance_of_batch_norm_is_refused(self, tmp_path):
        pixels_of("small").save(tmp_path / "cnn")
        tensors = load_file(tmp_path / "cnn" / "model.safetensors")
        tensors["network.backbone.blocks.0.1.running_var"][0] = -1
        save_file(tensors, tmp_path / "cnn" / "model.safetensors")
        self.refused(tmp_path / "cnn", "running_var has values below 0")

    def test_loading_does_not_change_the_random_state(self, folder):
        state = torch.get_rng_state()
        stp.models.load(folder)
        assert torch.equal(torch.get_rng_state(), state)

    def test_damaged_configuration_of_an_older_format_is_refused(self, folder):
        for changes in ({"hyperparameters": []}, {"recipe": 3}, {"training": None}):
            edit(folder, format_version=3, **changes)
            self.refused(folder, "its configuration of format 3 is damaged")

    def test_huge_configuration_is_refused(self, folder):
        with (folder / "config.json").open("r+b") as file:
            file.truncate(1 << 30)  # sparse
        self.refused(folder, r"config\.json has 1,073,741,824 bytes")

    def test_deeply_nested_configuration_is_refused(self, folder):
        (folder / "config.json").write_text("[" * 100_000)
        self.refused(folder, r"config\.json is not JSON")


def refuse_large_tensors(monkeypatch):
    """Raise if a tensor of more than a megabyte is made, unless it has no memory."""
    empty = torch.empty

    def checked(*size, **options):
        tensor = empty(*size, **options, device="meta") if "device" not in options else None
        is_large = tensor is not None and tensor.numel() > 1 << 18
        if is_large and empty(0).device.type != "meta":
            raise MemoryError(f"{tensor.shape} was allocated")
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", checked)


class TestCalibration:
    @pytest.fixture
    def calibrated(self):
        return replace(model_of(), calibration=calibration_of_three_groups())

    @pytest.fixture
    def place(self, calibrated, tmp_path):
        calibrated.save(tmp_path / "calibrated")
        return tmp_path / "calibrated"

    refused = TestLoadingChecks.refused

    def test_calibration_is_saved_with_the_model(self, place, calibrated):
        loaded = stp.models.load(place).calibration
        config, tensors = calibrated.calibration.state()
        assert loaded.state()[0] == config
        for name, array in loaded.state()[1].items():
            np.testing.assert_array_equal(array, tensors[name], strict=True)
        np.testing.assert_array_equal(loaded.reliable, calibrated.calibration.reliable)

    def test_card_describes_the_calibration(self, place, calibrated):
        card = (place / "README.md").read_text(encoding="utf-8")
        assert "intervals: 90 % of measured values" in card
        share = calibrated.calibration.coverage_of_groups["P2"]
        assert f"P2 {share:.0%}".replace("%", " %") in card
        n_reliable = calibrated.calibration.reliable.sum()
        assert f"reliable genes: {n_reliable} of 3," in card

    def test_card_of_uncalibrated_model_has_no_uncertainty(self, folder):
        assert stp.models.load(folder).calibration is None
        assert "Uncertainty" not in (folder / "README.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize("field", ["method", "level", "groups"])
    def test_missing_or_mistyped_field_is_refused(self, place, calibrated, field):
        config = calibrated.calibration.state()[0]
        edit(place, calibration={**config, field: 1})
        self.refused(place, f"calibration must give {field}")
        del config[field]
        edit(place, calibration=config)
        self.refused(place, f"calibration must give {field}")

    def test_invalid_values_are_refused(self, place, calibrated):
        config = calibrated.calibration.state()[0]
        for change, message in (
            ({"level": 9.0}, "between 0 and 1"),
            ({"groups": ["P1", 2, "P3"]}, "names of groups"),
            ({"groups": ["P1", "P2"]}, r"coverage must be \(2, 3\)"),
        ):
            edit(place, calibration={**config, **change})
            self.refused(place, message)

    @pytest.mark.parametrize("value", [None, [], 3])
    def test_arrays_without_their_configuration_are_refused(self, place, value):
        edit(place, calibration=value)
        self.refused(place, "calibration")

    def test_every_array_is_required_with_its_shape_and_type(self, place, calibrated):
        tensors = load_file(place / "model.safetensors")
        for name in calibrated.calibration.state()[1]:
            key = f"calibration.{name}"
            others = {other: array for other, array in tensors.items() if other != key}
            for changed, message in (
                ({}, f"lacks the array {name}"),
                ({key: tensors[key].astype(np.float64)}, f"{name} .*float64, not float32"),
                ({key: np.ascontiguousarray(tensors[key][..., :-1])}, "cannot be read"),
            ):
                save_file(others | changed, place / "model.safetensors")
                self.refused(place, message)

    def test_a_model_saved_without_a_rule_for_sections_has_the_default(self, place):
        tensors = load_file(place / "model.safetensors")
        others = {name: x for name, x in tensors.items() if "section_rule" not in name}
        save_file(others, place / "model.safetensors")
        rule = stp.models.load(place).calibration.section_rule
        assert (rule.limit, len(rule.widths)) == (0.1, 0)

    def test_calibration_of_another_model_is_refused(self, place, calibrated):
        other = np.random.default_rng(0).normal(size=(50, D + 1))
        foreign = uncertainty.Familiarity.fit(other, np.repeat(["P1", "P2"], 25))
        wrong = replace(calibrated.calibration, familiarity=foreign)
        replace(calibrated, calibration=wrong).save(place)
        self.refused(place, r"familiarity\.mean has shape \(6,\), expected \(5,\)")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


class TestPicklesAreNeverOpened:
    def test_pickled_file_is_refused(self, tmp_path):
        path, marker = tmp_path / "model.pkl", tmp_path / "sprung"
        path.write_bytes(pickle.dumps(Trap(marker)))
        with pytest.raises(ValueError, match=r"is a file.*pickled models are never opened"):
            stp.models.load(path)
        assert not marker.exists()

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "history.csv"])
    def test_pickle_in_place_of_a_file_is_refused(self, folder, name):
        marker = folder.parent / "sprung"
        (folder / name).write_bytes(pickle.dumps(Trap(marker)))
        with pytest.raises(ValueError, match=str(folder)):
            stp.models.load(folder)
        assert not marker.exists()

    def test_torch_checkpoint_in_place_of_the_weights_is_refused(self, folder):
        marker = folder.parent / "sprung"
        torch.save({"network": Trap(marker)}, folder / "model.safetensors")
        with pytest.raises(ValueError, match="cannot be read"):
            stp.models.load(folder)
        assert not marker.exists()

    def test_trap_works_in_the_standard_unpickler(self, tmp_path):
        pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
        assert (tmp_path / "sprung").exists()
