"""CAREamics and tensorstore at work; runs in the peer's environment, imports nothing of ours.

Each line of standard input is a request, as JSON; the answer is a line of JSON. The method's and the network's options
are CAREamics' own defaults; patches and tiles are those of its examples.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
from careamics import CAREamist
from careamics.config.factories.n2v_factory import create_advanced_n2v_config
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


class Steps(Callback):
    """Seconds of each training step, from the end of one to the end of the next: its data are loaded in between."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: object, **kwargs: object) -> None:
        self.ends.append(time.perf_counter())


def careamist(axes: str, patch: tuple[int, ...], batch: int, steps: int, callback: Callback) -> CAREamist:
    quiet = {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    config = create_advanced_n2v_config(
        experiment_name="peer",
        data_type="array",
        axes=axes,
        patch_size=patch,
        batch_size=batch,
        num_epochs=1,
        num_steps=steps,
        num_workers=0,
        trainer_params=quiet,
        seed=42,
    )
    return CAREamist(config, work_dir=tempfile.mkdtemp(), callbacks=[callback])


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype("float32")


def train(patch: list[int], batch: int, steps: int) -> dict[str, float]:
    """Median seconds of a step."""
    clock = Steps()
    data = noise((8, 512, 512)) if len(patch) == 2 else noise((2, 64, 256, 256))
    peer = careamist("SYX" if len(patch) == 2 else "SZYX", tuple(patch), batch, steps, clock)
    peer.train(train_data=data, val_data=data[(slice(0, 1), *(slice(0, p) for p in patch))])
    return {"seconds": float(np.median(np.diff(clock.ends)[2:]))}


READY: dict[str, tuple[CAREamist, np.ndarray]] = {}


def predict(shape: list[int], tile: list[int], overlap: list[int]) -> dict[str, float]:
    """Seconds of a prediction of a whole array in memory, by a network that was made at the first request."""
    axes, patch = ("YX", (64, 64)) if len(shape) == 2 else ("ZYX", (16, 64, 64))
    if axes not in READY:
        peer = careamist(axes, patch, 2, 2, Steps())
        image = noise(tuple(shape))
        peer.train(train_data=image, val_data=image[tuple(slice(0, p) for p in patch)])
        READY[axes] = peer, image
    peer, image = READY[axes]
    with FlopCounterMode(display=False) as count, torch.no_grad():
        peer.model.model(torch.randn(1, 1, *patch))
    start = time.perf_counter()
    peer.predict(pred_data=image, axes=axes, tile_size=tuple(tile), tile_overlap=tuple(overlap), batch_size=1)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "flops": count.get_total_flops() / float(np.prod(patch))}


def tensorstore(volume: str, output: str) -> dict[str, float]:
    """Seconds to write an array in memory as the shards that `ssdenoise` writes, with the same codec."""
    import tensorstore as ts

    voxels = np.load(volume)
    shutil.rmtree(output, ignore_errors=True)
    blosc = {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"}}
    inner = {
        "chunk_shape": [1, 1, 4, 128, 128],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, blosc],
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": output},
        "context": {"data_copy_concurrency": {"limit": torch.get_num_threads()}},
        "metadata": {
            "shape": list(voxels.shape),
            "data_type": str(voxels.dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 16, 512, 512]}},
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        },
        "create": True,
    }
    store = ts.open(spec).result()
    start = time.perf_counter()
    store.write(voxels).result()
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(int(os.environ["THREADS"]))
    works = {"train": train, "predict": predict, "tensorstore": tensorstore}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(works[request.pop("work")](**request)), flush=True)


main()
