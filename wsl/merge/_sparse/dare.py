"""DARE: drop entries at random and rescale the rest."""

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
def dare(
  deltas: types.Deltas,
  *,
  rate: Any,
  key: types.PRNGKey | None,
  uniforms: types.Deltas | None = None,
  mask: types.Deltas | None = None,
  rescale: str = 'inverse',
) -> types.Deltas:
  r"""Drops each entry with probability ``rate`` and rescales the others.

  .. math:: \tilde\tau_{t,p} = \frac{m_{t,p} \tau_{t,p}}{1 - r}, \qquad
    m_{t,p} \sim \mathrm{Bernoulli}(1 - r)

  It edits task vectors: follow it by any merge. Its expectation is the task
  vector, so linear merges (sums, means) stay unbiased; others do not.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    rate: fraction of entries dropped, ``0 <= rate <= 1``: one number; ``[T]``,
      one for each model; or one for each leaf, ``{'attn': 0.9, '.*': 0.5}``, as
      in ``tree.scalars``; may be traced. At 1 all entries are dropped.
    key: a key; the mask depends only on it, the index of the model and the name
      of the leaf, so it is the same sharded, streamed or on one device.
    uniforms: with ``key=None``: numbers of [0, 1), every leaf ``[T, ...]``;
      entries are kept where they reach the rate.
    mask: with ``key=None``: true for the entries that are kept, every leaf
      ``[T, ...]``; the rate is that of the draw.
    rescale: ``'inverse'`` divides by ``1 - rate`` (the paper), ``'l1'``
      restores the L1 norm of each leaf of each model by ``merge.rescale``
      (mergekit's dialect, which leaves norms below 1e-7; a noisy factor on
      small leaves), ``'none'`` leaves the kept entries as they are.

  Returns:
    The sparse task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if ``rate`` is out of range, ``rescale`` is unknown, not one of
      ``key``, ``uniforms`` and ``mask`` is given, or a leaf of these has
      another shape.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> sparse = dare({'w': jnp.ones((1, 8))}, rate=0.5, key=jax.random.key(0))
    >>> sorted(set(sparse['w'].ravel().tolist()))
    [0.0, 2.0]

  Reference:
    Yu et al., "Language Models are Super Mario: Absorbing Abilities from
    Homologous Models as a Free Lunch", 2023, arXiv:2311.03099.

  Differs from the official code in its random numbers. At rate 1 both return
  zeros.
  """
  models = _stack.count('dare', deltas)
  meaning = 'rate is the fraction dropped'
  check = lambda value: _checks.fraction('dare', 'rate', value, meaning)
  rates = _per_leaf.at_leaves('dare', 'rate', rate, deltas, models, check)
  _checks.choose('dare: rescale', rescale, dict.fromkeys(_RESCALES))
  draw, source = _source(deltas, models, key, uniforms, mask)

  def steps(tau: types.Deltas) -> types.Deltas:
    drop = lambda x, source, rate: tree.apply_kernel(
      _drop, x, source, rate=rate, draw=draw, inverse=rescale == 'inverse'
    )
    kept = jax.tree.map(drop, tau, source, rates)
    if rescale != 'l1':
      return kept
    # The L1 factor is a ratio of random sums: it is biased, most of all in
    # leaves of few entries.
    restore = lambda x, y: rescale_lib.restore_leaf(x, y, norm='l1')
    return jax.tree.map(restore, kept, tau)

  return _stack.fuse(deltas, steps)


def _source(
  deltas: types.Deltas,
  models: int,
  key: types.PRNGKey | None,
  uniforms: types.Deltas | None,
  mask: types.Deltas | None,
) -> tuple[str, types.Tree]:
  """Returns what decides on the entries, and its values for each leaf.

  Raises:
    ValueError: if not one source is given, or it does not fit the deltas.
  """
  given = {'key': key, 'uniforms': uniforms, 'mask': mask}
  chosen = [name for name, value in given.items() if value is not None]
  if len(chosen) != 1:
    raise ValueError('dare: give one of key=, uniforms= and mask=')
  (draw,) = chosen
  if key is not None:
    words = tree.name_words(key, list(tree.named(deltas)), models)
    return draw, tree.map_named(lambda name, _: words[name], deltas)
  values = tree.conform(f'dare: {draw}', given[draw], 'the deltas', deltas)
  for name, x in tree.named(deltas).items():
    found = np.shape(tree.named(values)[name])
    if found != tuple(x.shape):
      raise ValueError(
        f"dare: {draw} leaf '{name}' has shape {found}, expected "
        f'{tuple(x.shape)}, one value for each entry'
      )
  return draw, values


def _drop(
  x: types.Array,
  source: types.Array,
  *,
  rate: types.Array,
  draw: str,
  inverse: bool,
) -> types.Array:
  """Masks a leaf ``[T, ...]``; divides by the share kept."""
  wide = tree.wide(x)
  keep = 1 - rate.astype(wide.real.dtype)
  if draw == 'key':
    # Drawn in float32 for every dtype, so that the mask does not depend on it.
    share = keep.astype(np.float32)
    one = lambda key, share: tree.bernoulli(key, share, x.shape[1:])
    mask = jax.vmap(one)(source, share)
  elif draw == 'uniforms':
    bound = _stack.expand_rank(rate.astype(source.dtype), source)
    mask = source >= bound
  else:
    mask = source.astype(bool)
  kept = jnp.where(mask, wide, jnp.zeros_like(wide))
  # E[m tau / (1 - r)] = tau because E[m] = 1 - r; the variance is
  # tau^2 r / (1 - r).
  if inverse:
    kept = tree.safe_divide(kept, _stack.expand_rank(keep, x))
  return kept.astype(x.dtype)
