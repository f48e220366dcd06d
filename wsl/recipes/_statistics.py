"""Statistics of the tensors that a recipe merges, as lines of JSON."""

from collections.abc import Callable, Iterator
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from wsl import checkpoint, deltas, stats, tree
from wsl.recipes import _build


def statistics(
  merged: _build.Merged, *, ranks: bool = True
) -> Iterator[dict[str, Any]]:
  """Computes statistics of the inputs of each merged tensor, in order.

  Args:
    merged: the merged model.
    ranks: whether effective ranks are computed, which takes most of the time.

  Yields:
    For each float tensor that is merged: ``name``, ``shape`` and ``dtype`` of
    the output; ``base`` and ``models``, the names of the inputs; ``cosine``
    [T][T], ``sign_conflict``, ``norm_ratio`` [T], ``effective_rank`` [T] and
    ``stable_rank`` [T] of their task vectors, see ``stats.leaf_statistics``.
    Ranks are means over the matrices of a tensor. ``None`` stands for what is
    not defined: the ratio to a zero base, the rank of a vector. If the method
    gives no model the role of a base, ``base`` is ``None`` and the statistics
    are those of the models themselves. Copied tensors have none.

  Example:
    >>> import pathlib
    >>> import numpy as np
    >>> from wsl import recipes
    >>> recipe = recipes.parse({
    ...   'merge_method': 'task_arithmetic', 'base_model': 'a',
    ...   'models': [{'model': 'b', 'parameters': {'weight': 1}}]})
    >>> folders = {}
    >>> for name, x in {'a': 1.0, 'b': 3.0}.items():
    ...   params = {'w': np.asarray([x])}
    ...   model = recipes.Model(name)
    ...   folders[model] = recipes.Folder(pathlib.Path(name), params, None)
    >>> (line,) = statistics(recipes.build(recipe, folders))
    >>> line['name'], line['norm_ratio'], line['effective_rank']
    ('w', [2.0], None)
  """
  for name in tree.in_order(merged.inputs):
    inputs = merged.inputs[name]
    models = [{name: x} for x in inputs.models.values()]
    if not models:
      continue
    base = None if inputs.base is None else {name: inputs.base}
    stack = tree.stack(models) if base is None else deltas.stack(base, models)
    ((_, found),) = stats.leaf_statistics(stack, base, ranks=ranks)
    leaf = merged.params[name]
    yield {
      'name': name,
      'shape': list(leaf.shape),
      'dtype': str(leaf.dtype),
      'base': None if inputs.base is None else str(inputs.base_model),
      'models': [str(model) for model in inputs.models],
      'cosine': _json(found.cosine),
      'sign_conflict': _json(found.sign_conflict),
      'norm_ratio': _json(found.norm_ratio),
      'effective_rank': _mean(found.effective_rank),
      'stable_rank': _mean(found.stable_rank),
    }


def cost(
  merged: _build.Merged, rates: checkpoint.Rates | None, *, ranks: bool
) -> tuple[int, float | None]:
  """Returns the bytes that ``statistics`` reads, and its seconds without ranks.

  Args:
    merged: the merged model.
    rates: the measured rates; without them the time is None.
    ranks: as in ``statistics``; ranks read the task vectors once more.
  """
  passes = 2 if ranks else 1
  nbytes = passes * sum(
    _bytes(leaf)
    for inputs in merged.inputs.values()
    for leaf in (inputs.base, *inputs.models.values())
    if leaf is not None
  )
  if rates is None:
    return nbytes, None
  return nbytes, nbytes / min(rates.read, rates.memory)


def write_statistics(
  path: str | os.PathLike[str],
  merged: _build.Merged,
  *,
  ranks: bool = True,
  progress: Callable[[str, int, int], None] | None = None,
) -> int:
  """Writes ``statistics`` as lines of JSON, each when it is computed.

  Args:
    path: the file; it is replaced.
    merged: the merged model.
    ranks: as in ``statistics``.
    progress: called with the name of each tensor, and the bytes of outputs done
      and in all.

  Returns:
    The number of lines.

  Example:
    >>> import tempfile
    >>> from wsl import recipes
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'statistics.jsonl')
    >>> write_statistics(file, recipes.Merged({}, [], None, {}, {}))
    0
  """
  sizes = {name: _bytes(merged.params[name]) for name in merged.inputs}
  count, done, total = 0, 0, sum(sizes.values())
  with pathlib.Path(path).open('w', encoding='utf-8') as file:
    for line in statistics(merged, ranks=ranks):
      file.write(json.dumps(line, allow_nan=False) + '\n')
      file.flush()
      count, done = count + 1, done + sizes[line['name']]
      if progress is not None:
        progress(line['name'], done, total)
  return count


def _bytes(leaf: Any) -> int:
  return int(leaf.size) * np.dtype(leaf.dtype).itemsize


def _json(value: Any) -> Any:
  """Returns numbers as nested lists, ``None`` where they are not finite."""
  if isinstance(value, np.ndarray):
    return [_json(x) for x in value]
  return float(value) if math.isfinite(value) else None


def _mean(ranks: np.ndarray | None) -> list[float | None] | None:
  """Returns the mean over the matrices of each task vector, as JSON."""
  return None if ranks is None else _json(ranks.mean(axis=1))
