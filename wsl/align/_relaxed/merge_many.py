"""MergeMany: each of N models is matched to the mean of the others in turn."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from wsl import tree, types
from wsl.align import (
  _agreement,
  _arguments,
  _assignment,
  _permutation,
  _symmetry,
)
from wsl.align._gauges import compose
from wsl.align._match import weight_matching


def merge_many(
  models: Sequence[types.Params],
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  leaves: types.Leaves = _arguments.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  max_rounds: int = 100,
  max_sweeps: int = 100,
  progress: Callable[[int, float], None] | None = None,
) -> list[_permutation.Permutation]:
  r"""Permutes N models into one order, each to the mean of the others.

  .. math:: P^p \leftarrow \arg\max_P \Bigl\langle \frac{1}{N - 1}
    \sum_{q \ne p} P^q \theta^q,\; P \theta^p \Bigr\rangle

  A round visits all models in random order, and matches each by weights to the
  mean of the others from its current permutation. The ``agreement`` never
  decreases. The rounds end when one of them changes no permutation. The result
  depends on the order of visits; ``match_many`` optimises all permutations of a
  relaxed problem together.

  Args:
    models: N >= 2 models, leaves ``[...]`` of one structure and shapes.
    symmetry: the symmetry of all of them.
    key: a random key, for the orders of models and groups.
    leaves: which leaves to match, a regular expression or a predicate on (name,
      shape). By default all but running statistics of normalisation.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    max_rounds: the maximal number of rounds over all models, at least 1.
    max_sweeps: the maximal number of sweeps over all groups in each matching.
    progress: called after each round with its index and the agreement.

  Returns:
    N permutations, indices ``[*outer, n]``; the first is the identity. The
    merged model is the mean of ``permute(model, permutation,
    symmetry=symmetry)``.

  Raises:
    ValueError: if there are fewer than two models, they differ, do not fit the
      symmetry or contain NaN or inf, or an argument is out of range.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> models = [{'bias': jnp.asarray(x)}
    ...           for x in ([1., 2., 3.], [3., 1., 2.], [2., 3., 1.])]
    >>> units = align.Factor('units', 3)
    >>> symmetry = align.Symmetry((units,), (('bias', ((('units',),),)),))
    >>> found = merge_many(models, symmetry=symmetry, key=jax.random.key(0))
    >>> [g['units'].tolist() for g in found]
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]

  Reference:
    Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
    Symmetries", 2022, arXiv:2209.04836, algorithm 3 (MergeMany).

  Differs from the official code in that the first matching of each model can
  start from a grown permutation, as in ``weight_matching``; in that the rounds
  end when no permutation changes, not when the distance to the mean stops
  decreasing; and in returning permutations in place of the mean.
  """
  if len(models) < 2:
    raise ValueError(
      f'merge_many: {len(models)} models given, at least two are needed'
    )
  _arguments.check_counts(
    'merge_many', max_rounds=max_rounds, max_sweeps=max_sweeps
  )
  _arguments.check_models(
    {f'model {p}': model for p, model in enumerate(models)},
    symmetry,
    caller='merge_many',
  )
  models = [tree.read(model) for model in models]
  found = [_permutation.identity(symmetry)] * len(models)
  permuted = [*models]
  for i in range(max_rounds):
    draw, match = jax.random.split(jax.random.fold_in(key, i))
    changed = False
    for p in np.asarray(jax.random.permutation(draw, len(models))).tolist():
      new = weight_matching.weight_matching(
        _mean(permuted[:p] + permuted[p + 1 :]),
        models[p],
        symmetry=symmetry,
        key=jax.random.fold_in(match, p),
        initial=found[p] if i else None,
        leaves=leaves,
        solver=solver,
        max_sweeps=max_sweeps,
      )
      same = [np.array_equal(new[name], found[p][name]) for name in new]
      if not all(same):
        changed = True
        found[p] = new
        permuted[p] = _permutation.permute(models[p], new, symmetry=symmetry)
    if progress is not None:
      progress(i, _agreement.agreement(permuted, leaves=leaves))
    if not changed:
      break
  # The agreement is the same in any common order: choose that of model 0.
  back = compose.invert(found[0], symmetry=symmetry)
  return [compose.compose(g, back, symmetry=symmetry) for g in found]


def _mean(models: Sequence[types.Params]) -> types.Params:
  """Returns the mean of the leaves; integers become floats."""
  return tree.map(_mean_leaf, *models)


def _mean_leaf(first: types.Array, *others: types.Array) -> types.Array:
  return sum(map(tree.wide, others), tree.wide(first)) / (1 + len(others))
