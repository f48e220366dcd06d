r"""What a merge retains of the experts' changes, by depth.

The change of a block's outputs is :math:`\Delta_t = h_t - h_0`, with h_t the
outputs in expert t and h_0 those in the base; :math:`\Delta` is the same of the
merged model. The error is :math:`E\|\Delta - \Delta_t\|^2 / E\|\Delta_t\|^2`, 1
for the base, and the slope :math:`E\langle \Delta, \Delta_t \rangle /
E\|\Delta_t\|^2` is the retained part. They are local if the block alone is
replaced, so that it has the inputs of the expert, and accumulated if all blocks
are.

A least-squares map with the changes tau and tau_t has
:math:`\sum_t E x_t x_t^\top (\tau - \tau_t) = 0`. Multiplied by tau this is
:math:`\sum_t E\|\tau^\top x_t\|^2 =
\sum_t E\langle \tau^\top x_t, \tau_t^\top x_t \rangle`, so that error and slope
add to 1 over all tasks: a fit with an error retains less than the whole change,
and a coefficient above 1 restores it.
"""

from collections.abc import Sequence
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._regmean_gap import settings, variants
from experiments._run import console
from experiments._shared import side_by_side, suite_training
from wsl import tree, types


def measure(
  setting: settings.Setting, merged: types.Delta, models: suite_training.Models
) -> dict[str, Any]:
  """Measures a merge of all tasks, ``[S, ...]``, by depth.

  Returns:
    ``error`` and ``slope``, as ``retained`` returns them, and ``accuracy``, as
    ``by_merged_blocks`` does.
  """
  return {
    **retained(setting, merged, models),
    'accuracy': by_merged_blocks(setting, merged, models),
  }


def retained(
  setting: settings.Setting, merged: types.Delta, models: suite_training.Models
) -> dict[str, Any]:
  """Measures errors and slopes on validation images.

  Args:
    setting: suite and blocks.
    merged: a merge of all tasks, ``[S, ...]``.
    models: base and experts.

  Returns:
    ``error`` and ``slope``, each a dict of ``local`` and ``accumulated``, by
    seed and block, ``[S][L]``, means over tasks.
  """
  x = setting.suite.tasks.validation.x
  count = setting.suite.config.depth.examples
  found = []
  for s, t in np.ndindex(setting.suite.config.seeds, len(x)):
    one = side_by_side.pick((models.base, merged), s)
    expert = side_by_side.pick(models.stack, s, t)
    pairs = _of_task(
      setting.suite.outputs,
      setting.blocks,
      *one,
      expert,
      jnp.asarray(x[t, :count], jnp.float32),
    )
    found.append(np.asarray(pairs, np.float64))
  by_task = np.stack(found).reshape(-1, len(x), len(setting.blocks), 2, 2)
  by_seed = by_task.mean(1)  # [S, L, scope, measure]
  return {
    name: {
      scope: by_seed[..., i, j].tolist()
      for i, scope in enumerate(('local', 'accumulated'))
    }
    for j, name in enumerate(('error', 'slope'))
  }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_task(
  outputs: Any,
  blocks: tuple[str, ...],
  base: types.Params,
  merged: types.Delta,
  expert: types.Delta,
  x: types.Array,
) -> types.Array:
  """Returns (error, slope), local and accumulated, of each block, [L, 2, 2]."""
  zero = jax.tree.map(jnp.zeros_like, expert)

  def of(delta: types.Delta) -> list[types.Array]:
    found = outputs(jax.tree.map(jnp.add, base, delta), x)
    return [_last(found, block) for block in blocks]

  own, whole = of(expert), [of(zero), of(merged)]
  rows = []
  for i, block in enumerate(blocks):
    local = [of(swap(expert, other, [block]))[i] for other in (zero, merged)]
    accumulated = [found[i] for found in whole]
    rows.append([_compare(own[i], *pair) for pair in (local, accumulated)])
  return jnp.stack([jnp.stack(row) for row in rows])


def _last(found: dict[str, types.Array], block: str) -> types.Array:
  """Returns the output of the last module that has leaves in a block."""
  inside = [x for name, x in found.items() if re.search(block, f'{name}/')]
  return inside[-1]


def _compare(
  own: types.Array, base: types.Array, merged: types.Array
) -> types.Array:
  """Returns the error and the slope of a change, ``[2]``."""
  wanted, got = own - base, merged - base
  total = jnp.sum(wanted * wanted)
  error, product = jnp.sum((got - wanted) ** 2), jnp.sum(got * wanted)
  return jnp.stack([error, product]) / total


def swap(
  delta: types.Tree, other: types.Tree, blocks: Sequence[str]
) -> types.Tree:
  """Takes the leaves of some blocks from another tree of equal shapes."""
  chosen = lambda name: any(re.search(block, name) for block in blocks)
  return tree.map_named(
    lambda name, x, y: y if chosen(name) else x, delta, other
  )


def by_merged_blocks(
  setting: settings.Setting, merged: types.Delta, models: suite_training.Models
) -> list[list[float]]:
  """Returns test accuracies of experts whose first blocks are merged.

  Args:
    setting: suite and blocks.
    merged: a merge of all tasks, ``[S, ...]``.
    models: base and experts.

  Returns:
    By number of merged blocks, from 0 to L, and seed, means over tasks.
  """
  count, found = len(setting.suite.tasks.names), []
  repeated = jax.tree.map(
    lambda x: jnp.repeat(x[:, None], count, axis=1), merged
  )
  with console.progress('depth', len(setting.blocks) + 1) as tick:
    for depth in range(len(setting.blocks) + 1):
      hybrid = swap(models.stack, repeated, setting.blocks[:depth])
      found.append(variants.family(setting, hybrid, models).mean(1).tolist())
      tick('')
  return found
