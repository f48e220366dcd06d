"""Sequential residual blocks turned into parallel branches."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import stitch, types


@dataclasses.dataclass(frozen=True)
class Parallel:
  """The function of a block whose branches have one input.

  Attributes:
    block: the function of the branches' blocks, whose parameters are stacked
      ``[n, ...]``; or one for each.
  """

  block: Any

  def __call__(self, params: Any, h: types.Array) -> types.Array:
    """Computes ``h + sum_i (block_i(h) - h)``."""
    if isinstance(self.block, tuple):
      pairs = zip(self.block, params, strict=True)
      outs = [_checked(fn(p, h), h) for fn, p in pairs]
    else:
      outs = [
        _checked(x, h) for x in jax.vmap(self.block, (0, None))(params, h)
      ]
    h = jnp.asarray(h).astype(outs[0].dtype)
    return h + sum(out - h for out in outs)


def _checked(out: types.Array, h: types.Array) -> types.Array:
  """Returns the output of a block, after checking that it keeps the shape."""
  if out.shape != h.shape:
    raise ValueError(
      f'collapse: a block maps {h.shape} to {out.shape}: one that changes the '
      'shape is a group of its own'
    )
  return out


def collapse(
  model: stitch.Segmented, *, groups: Sequence[tuple[int, int]]
) -> stitch.Segmented:
  r"""Replaces each group of residual blocks by one layer of parallel branches.

  .. math:: \prod_i (I + F_i)(h) = h + \sum_i F_i(h)
    + \sum_{i > j} F_i(F_j(h)) + \dots \approx h + \sum_i F_i(h)

  The terms of second and higher order are left out: exact for one block, and of
  second order in the size of the branches otherwise. The authors train networks
  of this form from scratch; they do not claim that trained weights can be
  transplanted.

  Args:
    model: a network of residual blocks; those of a group keep the shape of h.
    groups: ranges ``(start, stop)`` of blocks that partition the depth, such as
      those of ``block_clusters``.

  Returns:
    A network of one block for each group. Its parameters are those of
    ``model``; they are stacked if the groups are of one size.

  Raises:
    ValueError: if the ranges are no partition of the blocks.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> same = lambda p, h: h
    >>> grow = lambda p, h: h + p * h
    >>> params = {'embed': {}, 'blocks': jnp.full(2, 0.1), 'head': {}}
    >>> model = stitch.Segmented(params, same, grow, same)
    >>> shallow = collapse(model, groups=[(0, 2)])
    >>> round(stitch.apply(model, jnp.ones(())).item(), 4)
    1.21
    >>> round(stitch.apply(shallow, jnp.ones(())).item(), 4)
    1.2

  Reference:
    Bermeitinger et al., "Make Deep Networks Shallow Again", 2023,
    arXiv:2309.08414.
  """
  ends = [stop for _, stop in groups]
  starts = [0, *ends[:-1]]
  full = bool(ends) and ends[-1] == model.depth
  if (
    not full
    or [*groups] != [*zip(starts, ends)]
    or any(a >= b for a, b in groups)
  ):
    raise ValueError(
      f'collapse: groups={list(groups)[:4]}: expected ranges (start, stop) '
      f'that partition the blocks 0..{model.depth - 1}'
    )
  blocks, block = model.params['blocks'], model.block
  sizes = {stop - start for start, stop in groups}
  if isinstance(block, tuple):
    # A block by itself may change the shape.
    together: Any = tuple(
      blocks[a] if b - a == 1 else tuple(blocks[a:b]) for a, b in groups
    )
    fns: Any = tuple(
      block[a] if b - a == 1 else Parallel(block[a:b]) for a, b in groups
    )
  elif len(sizes) == 1:
    (size,) = sizes
    together = jax.tree.map(
      lambda x: x.reshape(len(groups), size, *x.shape[1:]), blocks
    )
    fns = Parallel(block)
  else:
    cut: Callable[..., Any] = lambda a, b: jax.tree.map(
      lambda x: x[a:b], blocks
    )
    together = tuple(cut(a, b) for a, b in groups)
    fns = (Parallel(block),) * len(groups)
  return dataclasses.replace(
    model, params={**model.params, 'blocks': together}, block=fns
  )
