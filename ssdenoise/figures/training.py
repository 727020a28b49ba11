"""How the trainings went."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.provenance import read_json


def plot_training(entries: Mapping[str, Path], models: Mapping[str, Path], title: str, output: Path) -> None:
    """Draw training and validation loss against the step, one panel per trained method.

    Below stand which models are not the dataset's own, and what was chosen where a method entry is a choice; a figure
    without panels says why.
    """
    curves, notes = {}, []
    for name, folder in models.items():
        history, choice = folder / "history.csv", folder / "choice.json"
        curve = pd.read_csv(history) if history.exists() else None
        if curve is not None and len(curve):
            curves[name] = curve
        if choice.exists():
            notes.append(f"{name}: {read_json(choice)['says']}")
        elif folder != entries[name] and (curve is None or len(curve)):
            notes.append(f"{name}: the model of {folder}" + ("" if name in curves else ", without a history"))
    if not curves and not notes:
        notes = ["nothing was trained: parameters were chosen by the noisy data, without steps"]
    columns = max(2, len(curves))
    text = "\n".join(textwrap.fill(note, 42 * columns, break_on_hyphens=False) for note in notes)
    lines = text.count("\n") + 1 if text else 0
    figure = plt.figure(figsize=(3.2 * columns, 2.6 * bool(curves) + 0.16 * lines + 0.4), layout="constrained")
    for column, (name, curve) in enumerate(curves.items(), 1):
        axis = figure.add_subplot(1, len(curves), column)
        dot = "o" if len(curve) == 1 else None  # a single one makes no line
        axis.plot(curve["step"], curve["loss"], color=COLOURS[0], label="training", marker=dot)
        axis.plot(curve["step"], curve["validation_loss"], color=COLOURS[1], label="validation", marker=dot)
        axis.set(title=name, xlabel="step")
        if column == 1:
            axis.set_ylabel("loss (differs by method)")
            axis.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(text, fontsize=8, x=0.02, ha="left")
    save(figure, output, "figures")
