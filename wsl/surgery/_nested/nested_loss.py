"""Nested training: the loss of slices of one network, at one shape."""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align, tree, types
from wsl.surgery._nested import draws as draws_lib
from wsl.surgery._nested import size as size_lib
from wsl.surgery._nested import unit_masks


def nested_loss(
  loss_fn: Callable[..., types.Array],
  sizes: Sequence[size_lib.Size],
  *,
  symmetry: align.Symmetry,
  weights: Sequence[float] | None = None,
  draws: int | None = None,
  always: Sequence[int] = (),
  mixed: bool = False,
) -> jax.tree_util.Partial:
  r"""Returns the loss of several slices of a network on the same batch.

  .. math:: L(\theta) = \sum_{k \in S} c_k\, \ell(\theta \odot m_{w_k};\ B)

  S is all K sizes (MatFormer), or ``draws`` random ones in each step
  (SortedNet), or random ones beside those of ``always``: with the smallest and
  the largest that is the sandwich rule. The gradient of shared units is the
  sum over the slices that have them. All sizes are masks at the shapes of the
  whole, so that a training step compiles once.

  Slices that a normalisation counts (see ``slice``) are trained as masks, not
  as they are when they are cut.

  Args:
    loss_fn: maps (params, batch, key) to a scalar, as for ``train.advance``.
      To distil the whole network into its slices (Once-for-All), compute its
      logits before and give them as a part of the batch.
    sizes: K sizes, from ``granularities`` or ``slice_size``.
    symmetry: the symmetry of the model.
    weights: c, K numbers; ``None`` for 1.
    draws: the number of sizes drawn in each step, with replacement; ``None``
      for all sizes.
    always: positions in ``sizes`` of those that are in every step, beside the
      drawn ones.
    mixed: whether a drawn size is a mixture, where each group and each sequence
      of blocks draws one of the K sizes. It has weight 1.

  Returns:
    A function of (params, batch, key) for ``train.advance``: make it once and
    pass the same object again.

  Raises:
    ValueError: if there is no size, they do not belong to the symmetry, or an
      argument is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 4)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> sizes = surgery.granularities(symmetry, factors=(1, 2))
    >>> loss = nested_loss(lambda p, batch, key: jnp.sum(p['w'] * batch), sizes,
    ...                    symmetry=symmetry)
    >>> float(loss({'w': jnp.ones(4)}, jnp.ones(4), jax.random.key(0)))
    6.0

  Reference:
    Devvrit et al., "MatFormer: Nested Transformer for Elastic Inference", 2023,
    arXiv:2310.07707. Valipour et al., "SortedNet: A Scalable and Generalized
    Framework for Training Modular Deep Neural Networks", 2023,
    arXiv:2309.00255. Yu and Huang, "Universally Slimmable Networks and Improved
    Training Techniques", 2019, arXiv:1903.05134 (sandwich rule).
  """
  sizes = list(sizes)
  for size in sizes:
    size_lib.check(None, size, symmetry, 'nested_loss')
  stacked = size_lib.stack_sizes(sizes, 'nested_loss')
  given = np.ones(len(sizes)) if weights is None else np.asarray(weights, float)
  if given.shape != (len(sizes),) or not np.isfinite(given).all():
    raise ValueError(
      f'nested_loss: weights={str(weights)[:60]}, expected {len(sizes)} finite '
      'numbers'
    )
  tree.check_whole('nested_loss', draws=draws)
  if draws is not None and draws < 1:
    raise ValueError(f'nested_loss: draws={draws}, expected 1 or more, or None')
  if draws is None and (mixed or always):
    raise ValueError(
      'nested_loss: always and mixed belong to draws, the number of random '
      'sizes in each step'
    )
  for k in always:
    if not -len(sizes) <= k < len(sizes):
      raise ValueError(
        f'nested_loss: always names size {k} of {len(sizes)}, counted from 0'
      )
  fixed = range(len(sizes)) if draws is None else always
  plan = _Plan(draws or 0, tuple(k % len(sizes) for k in fixed), mixed)
  return jax.tree_util.Partial(
    _nested,
    tree.partial(loss_fn),
    symmetry,
    plan,
    stacked,
    given.astype(np.float32),
  )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Plan:
  """Which sizes are in a step: the number of draws, and fixed positions."""

  draws: int
  fixed: tuple[int, ...]
  mixed: bool


def _nested(
  loss_fn: Callable[..., types.Array],
  symmetry: align.Symmetry,
  plan: _Plan,
  stacked: size_lib.Size,
  weights: types.Array,
  params: types.Params,
  batch: types.Tree,
  key: types.PRNGKey,
) -> types.Array:
  """Sums the losses of fixed and drawn sizes, one size at a time."""
  draw_key, loss_key = jax.random.split(key)
  fixed = np.asarray(plan.fixed, np.int32)
  sizes = jax.tree.map(lambda n: jnp.asarray(n)[fixed], stacked)
  factors = jnp.asarray(weights)[fixed]
  if plan.draws:
    keys = jax.random.split(draw_key, plan.draws)
    one = functools.partial(draws_lib.draw, stacked, mixed=plan.mixed)
    drawn, places = jax.vmap(one)(keys)
    sizes = jax.tree.map(lambda *n: jnp.concatenate(n), sizes, drawn)
    ones = jnp.ones(plan.draws, factors.dtype)
    more = ones if plan.mixed else jnp.asarray(weights)[places]
    factors = jnp.concatenate([factors, more])

  # The gradient is sum_k c_k m_k * grad l(theta * m_k): units of the smallest
  # size receive a term of each slice, those of the largest alone a single one.
  def loss(size: size_lib.Size) -> types.Array:
    part = unit_masks.mask_units(params, size, symmetry=symmetry)
    return loss_fn(part, batch, loss_key)

  # A loop rather than vmap: masked weights would become batched products.
  losses = jax.lax.map(loss, sizes)
  return jnp.sum(losses * factors.astype(losses.dtype))
