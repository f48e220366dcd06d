"""RegMean++: Gram matrices of the inputs that the merged model gives."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from wsl import batches as batches_lib
from wsl import deltas as deltas_lib
from wsl import stats, tree, types
from wsl.merge import _regmean, _stack


@deltas_lib.on_stacks
def regmean_plus(
  deltas: types.Deltas,
  *,
  base: types.Params,
  apply_fn: Callable[[types.Params, Any], Any],
  batches: Sequence[Iterable[Any]],
  blocks: Sequence[types.Leaves],
  shrink: types.Scalar,
  coefs: Any = 1.0,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Merges block after block by RegMean, on the inputs of the merged model.

  .. math:: \tau^{(l)} = \operatorname{RegMean}\big(\tau_t^{(l)},
    G_t^{(l)}\big), \qquad G_t^{(l)} = \operatorname{mean} x x^\top
    \quad\text{over}\quad h_t^{(l)} = f^{(l-1)}_{merged} \circ \dots \circ
    f^{(1)}_{merged}(\text{data of } t)

  The inputs x of the maps in block l are those in the block of model t itself,
  applied to the outputs :math:`h_t^{(l)}` of the blocks merged before it. In
  ``regmean`` they are outputs of model t's own blocks, which the merged model
  does not have.

  Args:
    deltas: stacked task vectors in memory, every leaf ``[T, ...]``.
    base: the model that they are differences to.
    apply_fn: a hashable function ``(params, inputs) -> anything``, as in
      ``stats.gram``.
    batches: for each of T tasks its batches without labels, as in
      ``stats.gram``: lists, as they are read once for each block.
    blocks: the leaves of each block, by regular expressions or predicates, in
      the order in which the model applies them. Leaves in none are averaged
      before the first, as the authors do with embeddings. A leaf that stacks
      scanned layers is one block.
    shrink: alpha, as in ``regmean``.
    coefs: c_t, as in ``regmean``.
    matrices: as in ``regmean``.
    otherwise: as in ``regmean``, for the leaves of blocks.

  Returns:
    The merged task vector, every leaf ``[...]``.

  Raises:
    ValueError: if there is not one list of batches for each task, a leaf is in
      two blocks, a block has no leaf, or as ``regmean``.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda p, x: jnp.tanh(x @ p['a']) @ p['b']
    >>> base = {'a': jnp.zeros((2, 2)), 'b': jnp.zeros((2, 1))}
    >>> a = jnp.stack([jnp.eye(2), 3 * jnp.eye(2)])
    >>> b = jnp.asarray([[[1.0], [0.0]], [[0.0], [1.0]]])
    >>> x = [jnp.asarray([[1.0, 0.0]]), jnp.asarray([[0.0, 1.0]])]
    >>> merged = regmean_plus({'a': a, 'b': b}, base=base, apply_fn=net,
    ...                       batches=[x[:1], x[1:]], blocks=['a', 'b'],
    ...                       shrink=1.0)
    >>> merged['a'].tolist(), merged['b'].round(3).tolist()
    ([[1.0, 0.0], [0.0, 3.0]], [[1.0], [1.0]])

  Reference:
    Nguyen et al., "RegMean++: Enhancing Effectiveness and Generalization of
    Regression Mean for Model Merging", 2025, arXiv:2508.03121.

  Differs from the official code in the choice of leaves, which are the linear
  layers of an encoder there (what follows the last block stays the base's), and
  as ``regmean`` does. Each Gram matrix takes a pass up to its block, where that
  code keeps the activations of all batches between blocks.
  """
  models = _stack.count('regmean_plus', deltas)
  each = []
  for part in batches:
    batches_lib.check_iterable(part, name='regmean_plus')
    each.append(list(part))
  if len(each) != models:
    raise ValueError(
      f'regmean_plus: batches has {len(each)} entries, expected {models}: a '
      'list of batches for each task'
    )
  base = _stack.arrays('regmean_plus: the base', base)
  deltas = _stack.arrays('regmean_plus', deltas)
  regression = _regmean.prepare(
    'regmean_plus', deltas, shrink, coefs, matrices, otherwise
  )
  values = {
    field: _by_name(deltas, getattr(regression, field))
    for field in ('shrink', 'coefs', 'views')
  }
  stacks = tree.named(deltas)
  found: dict[str, Any] = {}

  def solve(names: Iterable[str], grams: Any, refuse: bool) -> None:
    pick = lambda given: {name: given[name] for name in names}
    part: dict[str, Any] = {k: pick(given) for k, given in values.items()}
    part['refuse'] = refuse and regression.refuse
    here = regression._replace(**part)
    found.update(here.solve(pick(stacks), grams))

  first, *rest = _groups(deltas, blocks)
  if first:
    solve(first, dict.fromkeys(first), refuse=False)
  for names in rest:
    grams = [
      _grams(base, _hybrid(deltas, found, t), apply_fn, each[t], names)
      for t in range(models)
    ]
    solve(names, tree.stack(grams), refuse=True)
  return tree.map_named(lambda name, _: found[name], deltas)


def _groups(
  deltas: types.Deltas, blocks: Sequence[types.Leaves]
) -> list[list[str]]:
  """Returns the names of leaves in no block, and those of each block.

  Raises:
    ValueError: if a leaf is in two blocks, or a block has none.
  """
  groups: list[list[str]] = [[] for _ in range(len(blocks) + 1)]
  one = jax.tree.map(lambda x: x[0], deltas)
  try:
    chosen = [tree.named(tree.select(one, leaves)) for leaves in blocks]
  except ValueError as error:
    raise ValueError(f'regmean_plus: blocks: {error}') from None
  for name in tree.named(deltas):
    own = [i for i, marks in enumerate(chosen) if marks[name]]
    if len(own) > 1:
      raise ValueError(
        f"regmean_plus: leaf '{name}' is in the blocks {own}: it has to be in "
        'one at most'
      )
    groups[own[0] + 1 if own else 0].append(name)
  if not all(groups[1:]):
    empty = next(i for i, names in enumerate(groups[1:]) if not names)
    raise ValueError(f'regmean_plus: block {empty} has no leaf')
  return groups


def _by_name(deltas: types.Deltas, values: types.Tree) -> dict[str, Any]:
  """Returns the value at each leaf, None included, by the leaf's name."""
  found: dict[str, Any] = {}
  tree.map_named(lambda name, _, x: found.update({name: x}), deltas, values)
  return found


def _hybrid(
  deltas: types.Deltas, merged: dict[str, Any], t: int
) -> types.Delta:
  """Returns task vector t, with the leaves that are merged already."""
  return tree.map_named(lambda name, x: merged.get(name, x[t]), deltas)


def _grams(
  base: types.Params,
  delta: types.Delta,
  apply_fn: Callable[[types.Params, Any], Any],
  batches: Iterable[Any],
  names: Sequence[str],
) -> dict[str, types.Gram | None]:
  """Returns the Gram matrices of some leaves of a base with a task vector."""
  model = deltas_lib.apply(base, delta, check_finite=False)
  inside = lambda name, _: name in names
  found = stats.gram(apply_fn, model, batches, leaves=inside)
  is_gram = lambda x: isinstance(x, types.Gram)
  named = tree.named(found, is_leaf=is_gram)
  return {name: named.get(name) for name in names}
