"""The parts of a run: hashes of the inputs, the merge, statistics."""

import hashlib
import json
import math
import pathlib
import time
from typing import Any

from experiments._merge_checkpoints import settings
from experiments._run import console
from wsl import checkpoint, deltas, recipes, stats, tree


def describe_inputs(setting: settings.Setting) -> list[dict[str, Any]]:
  """Describes each model: licence, sizes, SHA-256 of its files."""
  found = []
  with console.progress('hash', len(setting.folders)) as tick:
    for model, folder in setting.folders.items():
      (entry,) = recipes.describe_inputs(
        {model: folder}, hashes=setting.config.hashes
      )
      found.append(
        {
          **entry._asdict(),
          'parameters': sum(x.size for x in folder.params.values()),
          'bytes': sum(map(nbytes, folder.params.values())),
          'dtypes': sorted({str(x.dtype) for x in folder.params.values()}),
          'path': str(folder.path),
        }
      )
      tick(f'{model}')
  return found


def merge(
  setting: settings.Setting, out: pathlib.Path, inputs: list[dict[str, Any]]
) -> dict[str, Any]:
  """Computes and saves the merged model; a killed save is continued.

  Args:
    setting: the merge.
    out: the folder of the merged model.
    inputs: of ``describe_inputs``.

  Returns:
    What was written.
  """
  params, config = setting.merged.params, setting.config
  start, shown = time.monotonic(), 0
  size = checkpoint.format_bytes
  with console.progress('merge, %', 100) as tick:

    def progress(name: str, done: int, total: int) -> None:
      nonlocal shown
      rate = done / max(time.monotonic() - start, 1e-3)
      left = (total - done) / max(rate, 1)
      # The first tensor waits for statistics, such as thresholds.
      rest = f', {left:.0f} s left' if done > 0.05 * total else ''
      while shown < 100 * done // max(total, 1):
        shown += 1
        tick(f'{size(done)} of {size(total)}, {size(rate)}/s{rest}  {name}')

    written = sum(map(nbytes, params.values()))
    checkpoint.save(
      out,
      params,
      metadata={'format': 'pt'},
      shard_bytes=config.shard_bytes if written > config.shard_bytes else None,
      progress=progress,
      checksums=config.checksums,
      resume=True,
    )
  fields = recipes.CardEntry._fields
  entries = [recipes.CardEntry(*(x[k] for k in fields)) for x in inputs]
  recipes.write_companions(
    *(out, setting.recipe, setting.text, setting.folders, setting.merged),
    inputs=entries,
    template=setting.template,
  )
  return {
    'tensors': len(params),
    'parameters': sum(x.size for x in params.values()),
    'bytes': written,
    'dtypes': sorted({str(x.dtype) for x in params.values()}),
    'files': [_file(x) for x in sorted(out.iterdir()) if x.is_file()],
  }


def statistics(
  setting: settings.Setting, out: pathlib.Path
) -> list[dict[str, Any]]:
  """Computes statistics of the inputs and of the merged model by tensor.

  Args:
    setting: the merge.
    out: the folder of the merged model.

  Returns:
    The lines of ``recipes.statistics``, and with each of them ``parameters``,
    ``merged_cosine`` [T], of the merged task vector and those of the models,
    and ``merged_norm_ratio``, its norm divided by the base's.
  """
  written = checkpoint.load(out, lazy=True)
  rows = []
  total = len(setting.merged.inputs)
  ranks = bool(setting.config.ranks)
  with console.progress('statistics', total) as tick:
    for row in recipes.statistics(setting.merged, ranks=ranks):
      size = math.prod(row['shape'])
      rows.append({**row, 'parameters': size, **_merged(setting, row, written)})
      tick(row['name'])
  return rows


def _merged(
  setting: settings.Setting, row: dict[str, Any], written: Any
) -> dict[str, Any]:
  """Compares a merged tensor with those it is merged from."""
  name = row['name']
  inputs = setting.merged.inputs[name]
  every = [{name: x} for x in inputs.models.values()]
  like = every[0][name]
  last = {name: written[name]}
  if last[name].shape != like.shape:
    return {'merged_cosine': None, 'merged_norm_ratio': None}
  if last[name].dtype != like.dtype:
    last = tree.cast(last, like.dtype)
  base = None if inputs.base is None else {name: inputs.base}
  every.append(last)
  stack = tree.stack(every) if base is None else deltas.stack(base, every)
  ((_, found),) = stats.leaf_statistics(stack, base, ranks=False)
  return {
    'merged_cosine': [_number(x) for x in found.cosine[-1, :-1]],
    'merged_norm_ratio': _number(found.norm_ratio[-1]),
  }


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Writes a line of JSON for each row."""
  lines = (json.dumps(row, allow_nan=False) + '\n' for row in rows)
  path.write_text(''.join(lines), encoding='utf-8')


def nbytes(leaf: Any) -> int:
  """Returns the bytes of a leaf."""
  return int(leaf.size) * leaf.dtype.itemsize


def _file(path: pathlib.Path) -> dict[str, Any]:
  """Describes a file that was written."""
  with path.open('rb') as stream:
    digest = hashlib.file_digest(stream, 'sha256').hexdigest()
  return {'file': path.name, 'bytes': path.stat().st_size, 'sha256': digest}


def _number(x: Any) -> float | None:
  return float(x) if math.isfinite(x) else None
