"""Slides one after the other, or on the workers of a cluster."""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from stpredict import _keys
from stpredict._runtime import peak_memory
from stpredict._workers import run_on_worker
from stpredict.tl._cohort._records import Records, SlideRecord
from stpredict.tl._predict_slide import predict_slide

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spatialdata import SpatialData

    from stpredict.models import Model


@dataclass(frozen=True)
class Cohort:
    """What all slides of a run have in common."""

    records: Records
    model: Model
    model_hash: str
    options: Mapping[str, Any]  # of `predict_slide`, except `out`

    def inputs_of(self, slide: Path) -> str:
        """Hash of what the result of a slide depends on."""
        status = slide.stat()
        # the weights are compared with the model's, wherever their file is
        computing = ("batch_size", "device", "weights")
        options = {key: value for key, value in self.options.items() if key not in computing}
        inputs = [self.model_hash, options, status.st_size, status.st_mtime_ns]
        return hashlib.sha256(json.dumps(inputs, default=repr).encode()).hexdigest()


def run_slides(
    cohort: Cohort, slides: Mapping[str, Path], client: Any
) -> Iterator[tuple[SlideRecord, bool]]:
    """Predict every slide, and yield its record and whether it was computed now.

    Slides that another process computes at the moment come last.
    """
    run = _in_turn if client is None else _on_workers
    busy = {}
    for name, result in run(cohort, slides, client, wait=False):
        if result is None:
            busy[name] = slides[name]
        else:
            yield result
    if not busy:  # the model would be sent to all workers again
        return
    for _, result in run(cohort, busy, client, wait=True):
        if result is not None:
            yield result


def _in_turn(
    cohort: Cohort, slides: Mapping[str, Path], client: None, *, wait: bool
) -> Iterator[tuple[str, tuple[SlideRecord, bool] | None]]:
    for name, slide in slides.items():
        yield name, _run_slide(cohort, name, slide, wait)


def _on_workers(
    cohort: Cohort, slides: Mapping[str, Path], client: Any, *, wait: bool
) -> Iterator[tuple[str, tuple[SlideRecord, bool] | None]]:
    from distributed import as_completed

    shared = client.scatter([cohort], broadcast=True, hash=False)[0]
    futures = {
        client.submit(
            run_on_worker, os.getpid(), _run_slide, shared, name, slide, wait, pure=False
        ): name
        for name, slide in slides.items()
    }
    for future in as_completed(list(futures)):
        name = futures[future]
        error = future.exception()
        if error is None:
            yield name, future.result()
        else:  # the worker itself was lost, such as by a lack of memory
            record = _failed(name, slides[name], repr(error), seconds=float("nan"))
            cohort.records.write(record)
            yield name, (record, True)


def _run_slide(
    cohort: Cohort, name: str, slide: Path, wait: bool
) -> tuple[SlideRecord, bool] | None:
    """Predict a slide unless it is finished; None if another process computes it."""
    try:
        with cohort.records.lock(name, wait=wait):
            record = cohort.records.read(name)
            if record is not None and _is_finished(cohort, record, slide):
                return record, False
            record = _predict(cohort, name, slide)
            cohort.records.write(record)
            return record, True
    except Timeout:
        return None


def _is_finished(cohort: Cohort, record: SlideRecord, slide: Path) -> bool:
    return (
        record.state == "finished"
        and slide.exists()
        and record.inputs == cohort.inputs_of(slide)
        and all(path.exists() for path in cohort.records.results(record.name))
    )


def _predict(cohort: Cohort, name: str, slide: Path) -> SlideRecord:
    """Predict a slide; an error is recorded, not raised."""
    start = time.perf_counter()
    records = cohort.records
    try:
        for path in records.results(name):
            if path.exists() and records.read(name) is None:
                raise FileExistsError(f"{path} exists, but is no result: choose another folder")
        inputs = cohort.inputs_of(slide)
        records.write(SlideRecord(name, str(slide), "running", inputs))
        staging = records.staging(name)
        result = predict_slide(slide, cohort.model, out=staging, **cohort.options)
        description = _describe(result)
        records.publish(name, staging)
    except Exception as error:  # noqa: BLE001 the other slides go on, and failures are reported
        text = "".join(traceback.format_exception_only(error)).strip()
        return _failed(name, slide, text, seconds=time.perf_counter() - start)
    return SlideRecord(
        name,
        str(slide),
        "finished",
        inputs,
        seconds=round(time.perf_counter() - start, 2),
        peak_memory_gb=round(peak_memory() / 1e9, 2),
        **description,
    )


def _failed(name: str, slide: Path, error: str, *, seconds: float) -> SlideRecord:
    return SlideRecord(
        name,
        str(slide),
        "failed",
        inputs="",  # failed slides are always computed again
        seconds=round(seconds, 2),
        peak_memory_gb=round(peak_memory() / 1e9, 2),
        error=error,
    )


def _describe(result: SpatialData) -> dict[str, Any]:
    """Number of spots, and familiarity if the model is calibrated."""
    obs = result.tables[_keys.PREDICTED].obs
    familiarity = float(obs[_keys.FAMILIARITY].median()) if _keys.FAMILIARITY in obs else None
    return {"spots": len(obs), "familiarity": familiarity}
