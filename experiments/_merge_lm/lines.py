"""The lines between two experts: from one domain to another."""

import itertools
from typing import Any

import numpy as np

from experiments._merge_lm import scoring, settings
from experiments._run import console
from experiments._shared import side_by_side
from wsl import landscape, types


def measure(setting: settings.Setting, experts: types.Params) -> dict[str, Any]:
  """Measures both domains along the line between their experts.

  Args:
    setting: config, texts and model.
    experts: of the main recipe, ``[S, D, ...]``.

  Returns:
    ``weights`` of the second expert, ``[points]``; ``pairs``, the names of both
    domains; ``bits``, test bits for each byte of the first and of the second
    domain, ``[pairs][points][S][2]``.
  """
  names = setting.corpus.names
  pairs = list(itertools.combinations(range(len(names)), 2))
  weights = np.linspace(0, 1, setting.config.points)
  shape = (len(pairs), len(weights), setting.config.seeds)
  found = []
  with console.progress('lines', len(pairs)) as tick:
    for i, j, s in np.ndindex(shape):
      a, b = (side_by_side.pick(experts, s, d) for d in pairs[i])
      point = landscape.interpolate(a, b, float(weights[j]))
      own = setting.corpus.test[list(pairs[i])]
      found.append(scoring.of_model(setting, point, own))
      if (j + 1, s + 1) == shape[1:]:
        tick('')
  return {
    'weights': weights.tolist(),
    'pairs': [[names[d] for d in pair] for pair in pairs],
    'bits': np.stack(found).reshape(*shape, 2).tolist(),
  }
