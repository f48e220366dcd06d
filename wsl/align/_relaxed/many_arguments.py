"""Many models: checks of arguments, and stacks of their leaves."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _permutation, _symmetry
from wsl.align._relaxed import frank_wolfe, objective


def stack(
  models: Sequence[types.Params], names: tuple[str, ...], dtype: np.dtype
) -> objective.Leaves:
  """Stacks the named leaves of all models, ``[N, ...]``."""
  every = [tree.named(model) for model in models]
  return {
    name: tree.read(
      tree.apply_kernel(
        _stack_leaf,
        *(leaves[name] for leaves in every),
        dtype=tree.Static(dtype),
      )
    )
    for name in names
  }


def _stack_leaf(*leaves: types.Array, dtype: np.dtype) -> types.Array:
  return jnp.stack([x.astype(dtype) for x in leaves])


def check(
  models: Sequence[types.Params],
  symmetry: _symmetry.Symmetry,
  starts: int,
  initial: str | Sequence[Mapping[str, types.Array]],
  update: str,
  max_sweeps: int,
  gauges: Sequence[str],
) -> None:
  """Raises a ValueError that names the first argument that does not fit."""
  if len(models) < 2:
    raise ValueError(
      f'match_many: {len(models)} models given, at least two are needed'
    )
  models = _arguments.check_models(
    {f'model {p}': model for p, model in enumerate(models)},
    symmetry,
    caller='match_many',
  )
  for model in models:
    tree.check_not_narrowed('match_many', model)
  _arguments.check_counts('match_many', starts=starts, max_sweeps=max_sweeps)
  if update not in ('in turn', 'at once'):
    raise ValueError(
      f"match_many: update '{update}' is unknown, expected 'in turn' or "
      "'at once'"
    )
  _arguments.check_kinds(gauges, 'match_many')
  if {*gauges} == {'permutation'}:
    frank_wolfe.check_initial(initial, len(models), symmetry)
    return
  if update != 'in turn':
    raise ValueError(
      f"match_many: update is '{update}': gauges other than permutations are "
      "matched with update='in turn' only"
    )
  if isinstance(initial, str):
    frank_wolfe.check_initial(initial, len(models), symmetry)
    return
  for given in initial:
    _permutation.check_permutation(dict(given), symmetry, 'match_many: initial')
  if len(initial) != len(models):
    raise ValueError(
      f'match_many: initial has {len(initial)} elements for {len(models)} '
      'models'
    )
