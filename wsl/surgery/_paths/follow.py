"""Runs the blocks of a network along a path that is an array."""

from typing import Any

import jax
import jax.numpy as jnp

from wsl import stitch, types


def follow(
  model: stitch.Segmented, path: types.Array, inputs: Any
) -> types.Array:
  r"""Runs blocks in the order of a path, which may skip and repeat them.

  .. math:: h_{l+1} = \mathrm{block}_{p_l}(h_l), \qquad l = 0 \dots P - 1

  The path is an array, so one compiled program serves all paths of a length;
  shorter ones are padded by -1, which leaves h as it is. Under ``vmap`` over
  paths and inputs each example takes its own path.

  Args:
    model: a network of stacked blocks.
    path: numbers of blocks ``[P]``; negative ones are padding.
    inputs: inputs of its embedding, ``[B, ...]``.

  Returns:
    Outputs of its head, ``[B, ...]``: along ``0, 1, ..., D - 1`` those of
    ``stitch.apply``, bit for bit.

  Raises:
    ValueError: if the blocks are not stacked, or the path is no list of whole
      numbers. Numbers beyond the last block are not checked: they take it.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> same = lambda p, h: h
    >>> affine = lambda p, h: 10 * h + p
    >>> params = {'embed': {}, 'blocks': jnp.arange(3.0), 'head': {}}
    >>> model = stitch.Segmented(params, same, affine, same)
    >>> follow(model, jnp.asarray([1, 2, 2, -1]), jnp.zeros(())).item()
    122.0
  """
  if not model.stacked:
    raise ValueError(
      'follow: the blocks of the network are not stacked: a path through them '
      'is a program, applied by apply_program'
    )
  path = jnp.asarray(path)
  if path.ndim != 1 or not jnp.issubdtype(path.dtype, jnp.integer):
    raise ValueError(
      f'follow: path is {path.dtype}{list(path.shape)}: expected numbers of '
      'blocks [P]'
    )
  blocks, block = model.params['blocks'], model.block
  assert not isinstance(block, tuple)
  take = lambda i: jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), blocks
  )

  def step(h: types.Array, i: types.Array) -> tuple[types.Array, None]:
    run = lambda h: block(take(jnp.maximum(i, 0)), h)
    return jax.lax.cond(i >= 0, run, lambda h: h, h), None

  h = model.embed(model.params['embed'], inputs)
  # The carry of a scan has one type: that of the outputs of a block.
  after = jax.eval_shape(lambda h: block(take(0), h), h)
  h, _ = jax.lax.scan(step, jnp.asarray(h).astype(after.dtype), path)
  return model.head(model.params['head'], h)
