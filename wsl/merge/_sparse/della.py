"""DELLA: drop entries at random, the small ones more often."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _per_leaf, _stack
from wsl.merge._sparse import rescale as rescale_lib

_RESCALES = ('inverse', 'l1', 'none')


@deltas_lib.on_stacks
def della(
  deltas: types.Deltas,
  *,
  density: Any,
  epsilon: Any,
  key: types.PRNGKey,
  rescale: str = 'inverse',
  axis: int = 1,
) -> types.Deltas:
  r"""Drops entries with probabilities by their rank, and rescales the others.

  .. math:: \tilde\tau_{t,p} = \frac{m_{t,p} \tau_{t,p}}{q_{t,p}}, \qquad
    m_{t,p} \sim \mathrm{Bernoulli}(q_{t,p}), \qquad
    q_{t,p} = \rho - \epsilon + 2\epsilon\, \frac{r_{t,p} - 1}{n - 1}

  with the rank r of the magnitude of the entry, 1 for the smallest of the n in
  its row. It edits task vectors, as ``dare``: follow it by any merge.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: rho, the mean fraction kept: one number, ``[T]``, or one for each
      leaf, as in ``dare``.
    epsilon: half of the range of the probabilities, in the same forms;
      ``0 < density - epsilon`` and ``density + epsilon < 1``, except at
      density 1, where all entries are kept. mergekit's default is 0.15.
    key: a key; masks depend on it, the model's index and the leaf's name.
    rescale: ``'inverse'`` divides by the probability (the paper), ``'l1'``
      restores the L1 norm of each leaf by ``merge.rescale`` (mergekit),
      ``'none'`` leaves the kept entries as they are.
    axis: of a leaf ``[...]``, along which entries are ranked; leaves of one
      axis are ranked as a whole. 1 is mergekit's, for weights ``[out, in]``;
      for Flax's ``[in, out]`` take 0.

  Returns:
    The sparse task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if a probability is out of range, ``rescale`` is unknown, or a
      leaf has no such axis.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> deltas = {'w': jnp.ones((1, 8))}
    >>> kept = della(deltas, density=0.5, epsilon=0.0, key=jax.random.key(0))
    >>> sorted(set(kept['w'].ravel().tolist()))
    [0.0, 2.0]

  Reference:
    Deep et al., "DELLA-Merging: Reducing Interference in Model Merging through
    Magnitude-Based Sampling", 2024, arXiv:2406.11617.

  Differs from mergekit in its random numbers, and in rows of one entry: they
  are kept with probability ``density``; that code makes NaN.
  """
  models = _stack.count('della', deltas)
  _checks.choose('della: rescale', rescale, dict.fromkeys(_RESCALES))
  shares, halves = (
    _per_leaf.at_leaves('della', name, value, deltas, models, lambda _: None)
    for name, value in (('density', density), ('epsilon', epsilon))
  )
  jax.tree.map(_check_range, shares, halves)
  words = tree.name_words(key, list(tree.named(deltas)), models)

  along: dict[str, int] = {}
  for name, x in tree.named(deltas).items():
    along[name] = axis if x.ndim > 2 else 0
    _checks.axis('della', along[name], name, x.shape[1:] or (1,))
  ranks = _ranks_together(deltas, along)

  def drop(
    name: str, x: types.Array, density: Any, epsilon: Any
  ) -> types.Array:
    hyper = {'density': density, 'epsilon': epsilon, 'rescale': rescale}
    static = tree.Static(along[name])
    return tree.apply_kernel(
      _drop, x, words[name], *ranks[name], axis=static, **hyper
    )

  return tree.map_named(drop, deltas, shares, halves)


def _ranks_together(
  deltas: types.Deltas, along: dict[str, int]
) -> dict[str, tuple[Any, ...]]:
  """Ranks the entries of leaves in a trace, by one sort for equal leaves.

  Sorts are slow to compile. Leaves of one shape, whose names differ in numbers
  only, are ranked in turn in a loop; since all layers are sharded alike, their
  stack is sharded as they are. Other leaves are ranked when they are edited.
  """
  alike: dict[Any, list[str]] = {}
  named = tree.named(deltas)
  for name, x in named.items():
    if tree.is_traced(x) and x.size:
      alike.setdefault((tree.role(name), x.shape, x.dtype), []).append(name)
  found: dict[str, tuple[Any, ...]] = {name: () for name in named}
  for names in alike.values():
    if len(names) < 2:
      continue
    axis = along[names[0]]
    keys = [tree.read(tree.apply_kernel(_keys, named[n])) for n in names]

    # In place: the ranks of a leaf replace its keys.
    def step(i: Any, stack: types.Array, axis: int = axis) -> types.Array:
      ranks = _rank(stack[i], axis).astype(stack.dtype)
      return jax.lax.dynamic_update_index_in_dim(stack, ranks, i, 0)

    stack = jax.lax.fori_loop(0, len(names), step, jnp.stack(keys))
    found.update({name: (ranks,) for name, ranks in zip(names, stack)})
  return found


def _check_range(density: Any, epsilon: Any) -> None:
  """Checks that the probabilities lie between 0 and 1."""
  if any(isinstance(v, jax.core.Tracer) for v in (density, epsilon)):
    return
  density, epsilon = np.asarray(density), np.asarray(epsilon)
  inside = (density - epsilon > 0) & (density + epsilon < 1)
  if not np.all((epsilon >= 0) & (inside | (density == 1))):
    raise ValueError(
      f'della(density={density}, epsilon={epsilon}): expected density +- '
      'epsilon between 0 and 1'
    )


def _keys(x: types.Array) -> types.Array:
  """Returns integers in the order of the magnitudes, ``[T, n, ...]``."""
  magnitude = jnp.abs(tree.wide(x))
  magnitude = magnitude[:, None] if x.ndim == 1 else magnitude
  # The bits of floats >= 0 are in their order.
  return magnitude.view(f'int{8 * magnitude.dtype.itemsize}')


def _rank(keys: types.Array, axis: int) -> types.Array:
  """Ranks the keys ``[T, ...]`` along an axis of a leaf ``[...]``, from 0."""
  axis = axis + 1 if axis >= 0 else axis
  return jnp.argsort(jnp.argsort(keys, axis=axis), axis=axis)


def _drop(
  x: types.Array,
  words: types.Array,
  *ranks: types.Array,
  density: types.Array,
  epsilon: types.Array,
  rescale: str,
  axis: int,
) -> types.Array:
  """Masks a leaf ``[T, ...]`` by ranks along an axis and words ``[T, 2]``."""
  wide = tree.wide(x)
  column = wide[..., None] if x.ndim == 1 else wide
  (rank,) = ranks or (_rank(_keys(x), axis),)
  n = column.shape[axis + 1 if axis >= 0 else axis]
  real = wide.real.dtype
  density, epsilon = (
    _stack.expand_rank(v.astype(real), column) for v in (density, epsilon)
  )
  # -1 .. 1 over the ranks; 0 for a single entry.
  place = 2 * rank.astype(real) / max(n - 1, 1) - (1 if n > 1 else 0)
  share = jnp.where(density >= 1, 1, density + epsilon * place)
  draw = lambda key, share: tree.bernoulli(
    key, share.astype(np.float32), column.shape[1:]
  )
  mask = jax.vmap(draw)(words, share)
  kept = jnp.where(mask, column, jnp.zeros_like(column))
  if rescale == 'inverse':
    kept = kept / share.astype(kept.dtype)
  kept = kept.reshape(x.shape)
  if rescale == 'l1':
    kept = rescale_lib.restore(kept, wide, norm='l1')
  return kept.astype(x.dtype)
