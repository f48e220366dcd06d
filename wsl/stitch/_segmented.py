"""A network as embedding, blocks and head: pure functions and parameters."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import tree, types

PartFn: TypeAlias = Callable[[types.Params, Any], types.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Segmented:
  r"""A network of D blocks between an embedding and a head.

  .. math:: h_0 = \mathrm{embed}(x), \quad h_{p+1} = \mathrm{block}_p(h_p),
    \quad y = \mathrm{head}(h_D)

  Position p denotes the value :math:`h_p` after p blocks: 0 after the
  embedding, D before the head. The leaves of this pytree are the parameters;
  the functions are static. Use module-level functions or frozen dataclasses,
  which compare equal by value: a new lambda triggers a new compilation.

  Raises:
    ValueError: if a leaf is float64 and ``jax_enable_x64`` is off.

  Attributes:
    params: ``{'embed': tree, 'blocks': ..., 'head': tree}``; ``blocks`` is a
      tree whose leaves are stacked ``[D, ...]``, or a tuple of D trees.
    embed: maps (params, inputs) to :math:`h_0` ``[B, ..., d]``.
    block: maps (params, h) to h: one function where the blocks are stacked,
      or a tuple of D functions.
    head: maps (params, :math:`h_D`) to outputs.

  Example:
    >>> import jax.numpy as jnp
    >>> def same(params, h):
    ...   return h
    >>> def scale(params, h):
    ...   return h * params
    >>> params = {'embed': {}, 'blocks': jnp.asarray([2.0, 3.0]), 'head': {}}
    >>> model = Segmented(params, same, scale, same)
    >>> model.depth, float(apply(model, jnp.ones(())))
    (2, 6.0)
  """

  params: types.Params
  embed: PartFn = dataclasses.field(metadata={'static': True})
  block: PartFn | tuple[PartFn, ...] = dataclasses.field(
    metadata={'static': True}
  )
  head: PartFn = dataclasses.field(metadata={'static': True})

  def __post_init__(self) -> None:
    tree.check_not_narrowed('Segmented', self.params)

  @property
  def stacked(self) -> bool:
    """Whether the blocks share one function and have stacked parameters."""
    return not isinstance(self.block, tuple)

  @property
  def depth(self) -> int:
    """The number D of blocks."""
    blocks = self.params['blocks']
    if isinstance(self.block, tuple):
      if len(blocks) != len(self.block):
        raise ValueError(
          f"Segmented: params['blocks'] has {len(blocks)} trees for "
          f'{len(self.block)} block functions: give one for each'
        )
      return len(self.block)
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(blocks)}
    if len(lengths) != 1 or () in lengths:
      raise ValueError(
        "Segmented: params['blocks'] is not stacked: its leaves must have the "
        f'depth as first axis, but begin with {sorted(lengths)}'
      )
    return int(lengths.pop()[0])


def apply(model: Segmented, inputs: Any) -> types.Array:
  """Runs the whole network.

  Args:
    model: the network.
    inputs: inputs of its embedding, ``[B, ...]``.

  Returns:
    Outputs of its head, ``[B, ...]``.
  """
  h = model.embed(model.params['embed'], inputs)
  return model.head(model.params['head'], advance(model, h, 0, model.depth))


def features(model: Segmented, inputs: Any) -> tuple[types.Array, ...]:
  """Returns the values at all positions.

  Args:
    model: the network, of D blocks.
    inputs: inputs of its embedding, ``[B, ...]``.

  Returns:
    D + 1 arrays ``[B, ..., d_p]``: the output of the embedding, then of each
    block.

  Raises:
    ValueError: if stacked blocks change the shape.
  """
  h = model.embed(model.params['embed'], inputs)
  if isinstance(model.block, tuple):
    values = [h]
    for block, params in zip(model.block, model.params['blocks'], strict=True):
      values.append(block(params, values[-1]))
    return tuple(values)
  h = _cast_for_scan(model, h)
  _, after = jax.lax.scan(_collect_step(model.block), h, model.params['blocks'])
  return (h, *(after[i] for i in range(model.depth)))


def advance(
  model: Segmented, h: types.Array, start: int, stop: int
) -> types.Array:
  """Runs the blocks ``start, ..., stop - 1``.

  Args:
    model: the network.
    h: the value at position ``start``, ``[B, ..., d]``.
    start: the first block, static.
    stop: the position of the result, static; equal to ``start`` for ``h``.

  Returns:
    The value at position ``stop``.

  Raises:
    ValueError: if not ``0 <= start <= stop <= depth``.
  """
  if not 0 <= start <= stop <= model.depth:
    raise ValueError(
      f'advance: blocks {start}..{stop} of a network of {model.depth}: '
      f'expected 0 <= start <= stop <= {model.depth}'
    )
  blocks = model.params['blocks']
  if isinstance(model.block, tuple):
    for i in range(start, stop):
      h = model.block[i](blocks[i], h)
    return h
  if start == stop:
    return h
  part = jax.tree.map(lambda x: x[start:stop], blocks)
  h, _ = jax.lax.scan(_carry_step(model.block), _cast_for_scan(model, h), part)
  return h


def block_params(model: Segmented, index: int | slice) -> types.Params:
  """Returns the parameters of one block, without the stack's axis, or of some.

  Args:
    model: the segmented network.
    index: the block, or a range of blocks, which stay in a stack or a tuple.
  """
  blocks = model.params['blocks']
  if isinstance(model.block, tuple):
    return blocks[index]
  return jax.tree.map(lambda x: x[index], blocks)


def block_fn(model: Segmented, index: int) -> PartFn:
  """Returns the function of one block."""
  if isinstance(model.block, tuple):
    return model.block[index]
  return model.block


# jax.lax.scan caches its trace by the identity of the step function, so that
# both factories return the same object for the same block.
@functools.lru_cache
def _collect_step(block: PartFn) -> Callable[..., Any]:
  """Returns a scan step that runs a block and outputs its value."""

  def step(h: types.Array, params: types.Params) -> Any:
    h = block(params, h)
    return h, h

  return step


@functools.lru_cache
def _carry_step(block: PartFn) -> Callable[..., Any]:
  """Returns a scan step that runs a block without output."""
  return lambda h, params: (block(params, h), None)


def _cast_for_scan(model: Segmented, h: types.Array) -> types.Array:
  """Casts h to the output dtype of the blocks: a scan's carry has one type."""
  one = jax.eval_shape(lambda: block_params(model, 0))
  after = jax.eval_shape(block_fn(model, 0), one, h)
  if after.shape != h.shape:
    raise ValueError(
      f'Segmented: a stacked block maps {h.shape} to {after.shape}: blocks '
      'that change the shape need a tuple of functions and of trees'
    )
  return jnp.asarray(h, after.dtype)
