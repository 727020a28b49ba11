"""CAREamics on the images of `quality.py` and `real.py`; runs in the peer's environment, imports nothing of ours.

    python peer_quality.py n2v|n2n MINUTES SEED IMAGES.npz DENOISED.npz      prints one line of JSON

The first file holds `train` and, for n2n, `target` (SYX, float32), and `test_0`, `test_1`, ... (YX); or all of them
with channels (SCYX and CYX). The second gets `denoised_0`, ... The method's and the network's options are CAREamics'
own defaults; patches of 64x64, 16 a step, are those of its examples. Whole images pass its trained network at once.
Only steps are timed, not its set-up, and training stops at the budget.
"""

import json
import logging
import os
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
from careamics import CAREamist
from careamics.config.factories.care_n2n_factory import create_advanced_n2n_config
from careamics.config.factories.n2v_factory import create_advanced_n2v_config
from lightning.pytorch.callbacks import Callback

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Budget(Callback):
    """Stops a training after so many seconds of steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps, self.started = seconds, 0, 0.0

    def on_train_batch_start(self, *args: object, **kwargs: object) -> None:
        self.started = self.started or time.perf_counter()

    def on_train_batch_end(self, trainer: object, *args: object, **kwargs: object) -> None:
        self.steps += 1
        self.spent = time.perf_counter() - self.started
        if self.spent >= self.seconds:
            trainer.should_stop = True  # type: ignore[attr-defined]


def main() -> None:
    """Train, denoise, print."""
    kind, minutes, seed, path, output = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    data = np.load(path)
    train, target = data["train"], data["target"] if kind == "n2n" else None
    make = {"n2v": create_advanced_n2v_config, "n2n": create_advanced_n2n_config}[kind]
    channels = train.shape[1] if train.ndim == 4 else None
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    config = make(
        experiment_name="peer",
        data_type="array",
        axes="SCYX" if channels else "SYX",
        **({"n_channels": channels} if channels else {}),
        patch_size=(64, 64),
        batch_size=16,
        num_epochs=1000,
        num_workers=0,
        trainer_params=quiet | {"num_sanity_val_steps": 0},
        seed=42 + seed,  # 42 is their default; 0 is refused
    )
    budget = Budget(60 * minutes)
    peer = CAREamist(config, work_dir=tempfile.mkdtemp(), callbacks=[budget])
    peer.train(
        train_data=train,
        train_data_target=target,
        val_data=train[:1, ..., :64, :64],
        val_data_target=None if target is None else target[:1, ..., :64, :64],
    )
    net, denoised = peer.model.model.eval(), {}
    rows = train.reshape(len(train), channels or 1, -1)  # each channel is normalised by itself, as in its training
    mean, std = (measure(axis=(0, 2), dtype=np.float64).astype(np.float32) for measure in (rows.mean, rows.std))
    mean, std = mean[:, None, None], std[:, None, None]
    with torch.inference_mode():
        for i in range(sum(name.startswith("test_") for name in data)):
            noisy = data[f"test_{i}"]
            height, width = noisy.shape[-2:]
            units = (noisy.reshape(-1, height, width) - mean) / std
            padded = np.pad(units, ((0, 0), (0, -height % 4), (0, -width % 4)), mode="reflect")
            found = net(torch.from_numpy(padded)[None])[0].numpy()[:, :height, :width]
            denoised[f"denoised_{i}"] = (found * std + mean).reshape(noisy.shape)
    np.savez(output, **denoised)
    print(json.dumps({"steps": budget.steps, "seconds": budget.spent}))


main()
