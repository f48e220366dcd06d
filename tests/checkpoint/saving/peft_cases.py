"""Factors that save_lora writes, of models that PEFT has merged."""

from typing import Any

import numpy as np

from tests.recipes import folders
from wsl import adapters, tree

CASES = ('llama', 'gpt2', 'bert')
RANK = 2


def base(case: str) -> dict[str, np.ndarray]:
  """Returns a tiny model under the names of its modules in transformers."""
  found = folders.tensors(folders.SHAPES[case](), 0)
  prefix = 'transformer.' if case == 'gpt2' else ''
  return {prefix + name: x for name, x in found.items()}


def views(name: str, shape: tuple[int, ...]) -> tree.Matrix | None:
  """Returns the views of PyTorch, and those of GPT-2's maps [in, out]."""
  if '.c_' in name and len(shape) == 2:
    return tree.Matrix(rows=(0,), columns=(1,))
  return tree.torch(name, shape)


def arguments(case: str) -> dict[str, Any]:
  """Returns what save_lora gets besides the path."""
  params = base(case)
  factors, whole = {}, {}
  for i, (name, x) in enumerate(params.items()):
    draw = np.random.default_rng(i).standard_normal
    view = views(name, x.shape)
    if view is None:
      whole[name] = x + np.float32(0.1 * draw(x.shape))
    elif i % 3:  # every third matrix is that of the base
      _, m, n = view.sizes(x.shape)
      rank = 1 if i % 5 == 0 else RANK
      a, b = np.float32(draw((rank, m))), np.float32(0.1 * draw((n, rank)))
      scale = 0.25 if i % 7 == 0 else 1.0
      factors[name] = adapters.Factors(a, b, scale, x.shape, view)
  return {'factors': factors, 'whole': whole, 'base': params}
