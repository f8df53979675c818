"""The command line: thin over the public functions, with exit codes and plain errors."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest
import spatialdata
from typer.testing import CliRunner

import stpredict as stp
from stpredict.cli import app

COMMANDS = ("predict", "train", "evaluate", "report", "doctor")


@pytest.fixture(scope="module")
def folder(write_slide, tmp_path_factory):
    """Measured sections, new sections and a slide, as files."""
    folder = tmp_path_factory.mktemp("cli")
    stp.datasets.phantom(3, size_px=600).write(folder / "sections.zarr")
    stp.datasets.phantom(1, seed=1, size_px=600).write(folder / "new.zarr")
    write_slide(folder / "slide.tif", seed=1)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    """Folder of a model that the command line trained."""
    out = folder / "model"
    result = run("train", folder / "sections.zarr", "--method", "ridge", "--out", out)
    assert result.exit_code == 0, result.output
    assert "ridge" in result.output
    return out


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def terminal(*arguments):
    command = [sys.executable, "-m", "stpredict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_help_lists_the_commands_and_each_has_examples():
    listed = run("--help").output
    for name in COMMANDS:
        assert name in listed
        help_text = run(name, "--help").output
        assert "Examples" in help_text
        assert f"stpredict {name}" in help_text


def test_the_version_is_printed():
    assert run("--version").output.strip() == stp.__version__


def test_training_leaves_the_sections_as_they_are(folder, model):
    assert stp.models.load(model).method == "ridge"
    table = spatialdata.read_zarr(folder / "sections.zarr").tables["table"]
    assert "log1p" not in table.layers
    assert "X_texture" not in table.obsm


@pytest.mark.filterwarnings("ignore:section .* has .* spots")
def test_features_are_standardised_as_the_option_says(folder):
    command = ["train", folder / "sections.zarr", "--method", "ridge", "--standardize"]
    result = run(*command, "section", "--out", folder / "by_section")
    assert result.exit_code == 0, result.output
    assert stp.models.load(folder / "by_section").recipe.standardize == "section"
    result = run(*command, "slide", "--out", folder / "refused")
    assert result.exit_code != 0
    assert "training" in result.output
    command[3] = "cnn"
    result = run(*command, "section", "--out", folder / "refused")
    assert "cnn reads pixels" in str(result.exception) + result.output
    assert not (folder / "refused").exists()


def test_slides_are_predicted_from_a_terminal(folder, model):
    out = folder / "out"
    result = terminal(
        "predict", model, folder / "slide.tif", "--out", out, "--genes", "morphology_001"
    )
    assert result.returncode == 0, result.stderr
    assert "slide 1 of 1, slide: finished" in result.stdout
    assert "\r" not in result.stderr  # no bars in a log file
    table = spatialdata.read_zarr(out / "slide.zarr").tables["predicted"]
    assert table.var_names.tolist() == ["morphology_001"]


def test_fine_positions_are_predicted(folder, model):
    out = folder / "fine"
    result = run("predict", model, folder / "slide.tif", "--out", out, "--resolution-um", 50)
    assert result.exit_code == 0, result.output
    tables = spatialdata.read_zarr(out / "slide.zarr").tables
    assert tables["superresolved"].n_obs > 2 * tables["predicted"].n_obs


def test_a_failed_slide_ends_with_exit_code_1(folder, model):
    out = folder / "failed"
    result = run("predict", model, folder / "no.svs", folder / "slide.tif", "--out", out)
    assert result.exit_code == 1
    assert f"finished slides in {out}: 1 of 2" in result.output.replace("\n", "")
    states = pd.read_csv(out / "manifest.csv").set_index("name")["state"]
    assert states.to_dict() == {"no": "failed", "slide": "finished"}


def test_models_are_scored_on_measured_sections(folder, model):
    scores = folder / "scores.csv"
    result = run("evaluate", folder / "new.zarr", model, "--out", scores)
    assert result.exit_code == 0, result.output
    assert "model" in result.output
    assert pd.read_csv(scores)["metric"].eq("pcc").any()


@pytest.fixture
def other_tool(folder, tmp_path):
    """Predictions of another tool, as a CSV file."""
    table = spatialdata.read_zarr(folder / "new.zarr")["table"]
    table.to_df("expected").to_csv(tmp_path / "other_tool.csv.gz")
    return tmp_path / "other_tool.csv.gz"


def test_predictions_of_other_tools_are_scored_with_and_without_models(folder, model, other_tool):
    scores = folder / "compared.csv"
    options = ("--predictions", other_tool, "--out", scores)
    for models in ((), (model,)):
        result = run("evaluate", folder / "new.zarr", *models, *options)
        assert result.exit_code == 0, result.output
        assert "the training sections of 'other_tool' are unknown" in result.output.lower()
        methods = pd.read_csv(scores)["method"]
        assert set(methods) >= {"other_tool", *(path.name for path in models)}


def test_a_smoothed_layer_is_refused_unless_asked_for(tmp_path):
    sdata = stp.datasets.phantom(1, size_px=1000)
    table = sdata["table"]
    table.layers["log1p"] = table.layers["expected"]
    table.to_df("expected").to_csv(tmp_path / "other_tool.csv")
    sdata.write(tmp_path / "smoothed.zarr")
    command = ("evaluate", tmp_path / "smoothed.zarr", "--predictions", tmp_path / "other_tool.csv")
    refused = run(*command)
    assert refused.exit_code == 1
    assert "is smoothed, imputed or denoised" in str(refused.exception)
    allowed = run(*command, "--allow-smoothed")
    assert allowed.exit_code == 0, allowed.output
    assert "SMOOTHED" in allowed.output


def test_a_report_of_a_cross_validation_is_written(folder):
    out = folder / "report.html"
    result = run("report", folder / "sections.zarr", "--method", "ridge", "--out", out)
    assert result.exit_code == 0, result.output
    assert "Cross-validation of ridge" in out.read_text(encoding="utf-8")


def test_the_doctor_checks_the_installation_and_the_slides(folder, model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run("doctor", folder / "slide.tif", "--model", model)
    assert result.exit_code == 0, result.output
    for part in (
        f"stpredict {stp.__version__}",
        "openslide: available",
        "texture: needs no",
        "lazyslide-models: ",
    ):
        assert part in result.output
    assert "600 × 600 px, 1 µm per pixel, 0.6 × 0.6 mm" in result.output
    assert "tiles of 112 µm are 112 px, enlarged" in result.output


def test_the_doctor_reports_a_slide_that_cannot_be_predicted(folder, tmp_path):
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    result = run("doctor", tmp_path / "bad.svs", folder / "slide.tif")
    assert result.exit_code == 1
    assert "error:" in result.output
    assert "600 × 600 px" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("predict",), 2, "Missing argument"),
        (("predict", "no_model", "slide.svs", "--out", "out"), 1, "stpredict: error: .*no_model"),
        (("train", "no.zarr", "--out", "model"), 1, "stpredict: error: no.zarr does not exist"),
    ],
)
def test_errors_are_one_line_without_a_traceback(arguments, code, message, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "stpredict", *arguments],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == code
    assert re.search(message, result.stderr)
    assert "Traceback" not in result.stderr
