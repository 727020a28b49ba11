"""Choose: of several models of a dataset, the one with the least error as it is told without a reference."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssdenoise.config.specs import ChooseSpec
from ssdenoise.errors import FormatError
from ssdenoise.metrics import SAMPLED, SIGNIFICANT, holm, paired
from ssdenoise.provenance import Clock, code_hash, file_digest, listed, read_json, record, write_json


@dataclass(frozen=True)
class Candidate:
    """A method entry as the choice sees it.

    Attributes
    ----------
    entry : str
    error : float
        Estimated mean squared error, in squared intensity units.
    behind_db : float or None
        By how much it is behind the chosen one; None where an estimate is not above 0.
    p_value : float or None
        Two-sided, of the difference to the chosen one on parts of the sample, corrected for the number of candidates;
        None of the chosen one.
    tie : bool
        Whether it may be as good: where it is not significantly worse on most parts.
    """

    entry: str
    error: float
    behind_db: float | None
    p_value: float | None
    tie: bool


def choose(spec: ChooseSpec, candidates: Mapping[str, tuple[Path, Path]], output: Path) -> dict[str, Any]:
    """Copy the model with the least estimated error, and say why.

    Parameters
    ----------
    spec : ChooseSpec
    candidates : mapping
        Method entry, and folder of its model and Parquet file of `probe`.
    output : Path
        Folder for `model.safetensors`, `model.json`, `choice.json` and `probe.parquet`, the chosen one's.

    Returns
    -------
    dict
        Content of `choice.json`: the entry chosen, the criterion, all candidates from the best, and one sentence.

    Raises
    ------
    FormatError
        If a candidate has no score by the criterion.
    """
    clock = Clock()
    probes = {entry: pd.read_parquet(probe) for entry, (_, probe) in candidates.items()}
    ranking = ranked(probes, spec.criterion)
    chosen = ranking[0]
    folder = candidates[chosen.entry][0]
    model = read_json(folder / "model.json")
    training = [read_json(one / "model.json")["provenance"] for one, _ in candidates.values()]
    files = {str(path): file_digest(path) for _, path in candidates.values()}
    provenance = record(
        "choose", spec=spec.model_dump(mode="json"), inputs=files, code=code_hash("choose"), clock=clock
    )
    # what the choice cost is what the training of all candidates cost
    provenance["seconds"] += sum(one["seconds"] for one in training)
    joules = [one["joules"] for one in (*training, provenance)]
    provenance["joules"] = None if None in joules else sum(joules)
    provenance["seconds_before_resume"] = sum(one["seconds_before_resume"] for one in training)
    provenance["peak_memory_mb"] = max(one["peak_memory_mb"] for one in (*training, provenance))
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "model.safetensors", output / "model.safetensors")
    write_json(output / "model.json", model | {"provenance": provenance, "chosen": chosen.entry})
    probes[chosen.entry].assign(method=spec.entry).to_parquet(output / "probe.parquet", index=False)
    choice = {
        "chosen": chosen.entry,
        "criterion": spec.criterion,
        "says": sentence(ranking, spec.criterion),
        "candidates": [asdict(one) for one in ranking],
    }
    write_json(output / "choice.json", choice)
    return choice


def ranked(probes: Mapping[str, pd.DataFrame], criterion: str) -> list[Candidate]:
    """The candidates from the best, each compared with it over the parts of the sample."""
    per = SAMPLED[criterion]
    if missing := [entry for entry, rows in probes.items() if rows[criterion].isna().any()]:
        raise FormatError(
            f"{listed(missing)} has no {criterion} on this dataset, as its noise is not that of photons; choose by "
            "another criterion"
        )
    errors = {entry: float(rows[criterion].sum() / rows[per].sum()) for entry, rows in probes.items()}
    order = sorted(errors, key=errors.__getitem__)
    # a narrow part at the end of a plane may have no hidden voxel
    parts = {entry: (rows[criterion] / rows[per])[rows[per] > 0].to_numpy(float) for entry, rows in probes.items()}
    best = order[0]
    tests = [paired(parts[entry], parts[best]) for entry in order[1:]]
    found = [Candidate(best, errors[best], 0.0, None, tie=False)]
    for entry, p, (_, effect) in zip(order[1:], holm([p for p, _ in tests]), tests, strict=True):
        behind = float(10 * np.log10(errors[entry] / errors[best])) if errors[best] > 0 else None
        tie = not (p < SIGNIFICANT and effect > 0)
        found.append(Candidate(entry, errors[entry], behind, float(p) if np.isfinite(p) else None, tie))
    return found


def sentence(ranking: Sequence[Candidate], criterion: str) -> str:
    """Why the first was chosen, for people."""
    best, others = ranking[0], ranking[1:]
    what = {"risk": "estimated error (risk)", "blind_error": "error at hidden voxels", "thinned_error": "thinned error"}
    if not others:
        return f"{best.entry} was the only candidate"
    margin = "" if others[0].behind_db is None else f", {others[0].behind_db:.2f} dB less than {others[0].entry}'s"
    text = f"{best.entry} has the least {what[criterion]}{margin}"
    if best.error <= 0:
        text += ", which is below 0: the noise that was calibrated is stronger than that of the volume"
    if ties := [one.entry for one in others if one.tie]:
        text += f"; a tie with {listed(ties)}, which may be as good"
    return text
