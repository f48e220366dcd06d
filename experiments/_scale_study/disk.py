"""A merge that is streamed from files to a file, against its plan."""

import pathlib
import shutil
import time
from typing import Any

import jax
import numpy as np

from experiments._run import console
from experiments._scale_study import formulas, settings
from wsl import checkpoint, deltas, merge, types


def measure(
  setting: settings.Setting, folder: pathlib.Path
) -> list[dict[str, Any]]:
  """Merges models in files, and returns a row for each method.

  Args:
    setting: ``config.disk``: ``methods``, ``models``, ``leaves``, ``side``.
    folder: of the files, which are removed; all processes share it.

  Returns:
    For each method the bytes by formula, by ``checkpoint.plan`` and written,
    and the seconds by the plan's probe of the disk and measured.
  """
  config = setting.config.disk
  rng = np.random.default_rng(0)

  def model() -> dict[str, np.ndarray]:
    shape = (config.side, config.side)
    draw = lambda: rng.normal(size=shape).astype(np.float32)
    return {f'block_{i}/kernel': draw() for i in range(config.leaves)}

  rows = []
  try:
    files = [folder / f'{i}.safetensors' for i in range(config.models + 1)]
    for file in files:
      checkpoint.save(file, model())
    base, *models = (checkpoint.load(file, lazy=True) for file in files)
    stack = deltas.stack(base, models)
    # A merge reads the base and the models once, and so do a sample and each
    # pass of the search for a threshold.
    once = config.models + 1
    search = (1 + formulas.PASSES) * once
    methods = {
      'sum': (once, lambda: merge.sum(stack)),
      'ties': (once + search, lambda: merge.ties(stack, density=0.2)),
    }
    with console.progress('from disk', len(config.methods)) as tick:
      for method in config.methods:
        reads, merged_delta = methods[method]
        merged = deltas.apply(base, merged_delta(), coef=0.3)
        out = folder / f'{method}.safetensors'
        rows.append(_row(method, reads, merged, out, config))
        tick(method)
  finally:
    if jax.process_index() == 0:
      shutil.rmtree(folder, ignore_errors=True)
  return rows


def _row(
  method: str, reads: int, merged: types.Params, out: pathlib.Path, config: Any
) -> dict[str, Any]:
  """Plans and saves one merge."""
  plan = checkpoint.plan(merged, path=out, probe=config.probe)
  start = time.perf_counter()
  checkpoint.save(out, merged)
  seconds = time.perf_counter() - start
  size = 4 * config.leaves * config.side**2
  return {
    'operation': method,
    'models': config.models,
    'bytes_in': {'formula': reads * size, 'plan': plan.bytes_in},
    'bytes_out': {
      'formula': size,
      'plan': plan.bytes_out,
      'written': out.stat().st_size,
    },
    'peak': plan.peak_bytes,
    'predicted': plan.seconds,
    'seconds': seconds,
  }
