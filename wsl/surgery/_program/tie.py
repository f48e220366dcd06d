"""Shared weights of the layers of a program, residuals, and own leaves."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.surgery._program import blocks as blocks_lib
from wsl.surgery._program import program as program_lib
from wsl.surgery._program import residual


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('shared', 'own', 'outside'),
  meta_fields=('layers', 'gates', 'gated', 'form'),
)
@dataclasses.dataclass(frozen=True)
class Tied:
  """Parameters in which layers share weights; ``untie`` gives the model.

  Its leaves can be trained: the gradient at shared weights is the sum over the
  layers that use them.

  Attributes:
    shared: K sets of weights, by the place of the leaf in its block.
    own: for each layer the leaves that replace the shared ones, and
      ``deltas.Factors`` that are added to them.
    outside: the leaves outside the blocks.
    layers: for each layer the number of its set of weights.
    gates: for each layer the factor of its gated leaves.
    gated: a regular expression of those leaves, or None.
    form: where the leaves are in the model.
  """

  shared: tuple[blocks_lib.Block, ...]
  own: tuple[blocks_lib.Block, ...]
  outside: tuple[Any, ...]
  layers: tuple[int, ...]
  gates: tuple[float, ...]
  gated: str | None
  form: blocks_lib.Form


def tie(
  params: types.Params,
  program: program_lib.Program,
  *,
  blocks: str,
  matrices: tree.Matrices | None = None,
) -> Tied:
  r"""Applies a program and keeps what its layers share.

  .. math:: W_l = W'_{\sigma(l)} + B_l A_l, \qquad
    W_l - W'_{\sigma(l)} = U S V^\top, \quad B_l = U_r S_r, \; A_l = V_r^\top

  which is the best approximation of rank r of the layer's own block. Vectors
  have no residual: where they are shared, a layer of full rank differs from its
  own block by them, unless ``program.untied`` names them.

  Args:
    params: any pytree of dicts, lists and tuples; in memory, traced or on
      demand.
    program: for networks of as many blocks.
    blocks: a regular expression whose group captures the number of a block in
      the names of its leaves, ``r'layers[./](\d+)[./]'``; without a group, the
      leaves in which blocks are stacked ``[D, ...]``.
    matrices: which leaves of a block are matrices, and their axes, as in
      ``tree.views``: ``tree.torch`` for names of PyTorch.

  Returns:
    Shared weights, and the own leaves and residuals of each layer.

  Raises:
    ValueError: in one line, if the program names a block that is not there, or
      blocks that are averaged or approximated differ in their leaves.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import surgery
    >>> params = {f'block_{i}': {'w': jnp.eye(2) * i} for i in range(4)}
    >>> program = surgery.recursive(4, loops=2, init='average', rank=1)
    >>> tied = tie(params, program, blocks=r'block_(\d+)/')
    >>> len(tied.shared), tied.layers, tied.own[0]['block_', '/w'].rank
    (2, (0, 1, 0, 1), 1)

  Reference:
    Bae et al., "Relaxed Recursive Transformers: Effective Parameter Sharing
    with Layer-wise LoRA", 2024, arXiv:2410.20672.
  """
  program_lib.check_program(program)
  found = blocks_lib.cut('program', params, blocks)
  if len(found.blocks) != program.depth:
    raise ValueError(
      f'program: it is for {program.depth} blocks, the parameters have '
      f"{len(found.blocks)} that match '{blocks}'"
    )
  shared: list[blocks_lib.Block] = []
  numbers: dict[int, int] = {}
  layers, own = [], []
  for i, layer in enumerate(program.layers):
    if layer.tied is None or layer.tied not in numbers:
      if layer.tied is not None:
        numbers[layer.tied] = len(shared)
      shared.append(_mean(i, [found.blocks[s] for s in layer.sources]))
      number = len(shared) - 1
    else:
      number = numbers[layer.tied]
    layers.append(number)
    own.append(_own(i, layer, program, shared[number], found.blocks, matrices))
  return Tied(
    tuple(shared),
    tuple(own),
    found.outside,
    tuple(layers),
    tuple(float(layer.gate) for layer in program.layers),
    program.gated,
    found.form,
  )


def untie(tied: Tied) -> types.Params:
  r"""Returns the model of shared weights: its layers, renumbered from 0.

  .. math:: W_l = g_l (W'_{\sigma(l)} + B_l A_l)

  with the gate :math:`g_l` at gated leaves only.

  Args:
    tied: from ``tie``, perhaps trained since.

  Returns:
    A model in nested dicts and lists, every leaf in its dtype. Leaves that are
    copies are the same arrays, bit for bit.

  Raises:
    ValueError: if ``gated`` matches no leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import surgery
    >>> params = {'blocks': [{'w': jnp.ones(1)}, {'w': jnp.zeros(1)}]}
    >>> tied = tie(params, surgery.stack(2, times=2), blocks=r'blocks/(\d+)/')
    >>> [x['w'].item() for x in untie(tied)['blocks']]
    [1.0, 0.0, 1.0, 0.0]
  """
  pattern = None if tied.gated is None else tree.compiled(tied.gated)
  used = any(
    pattern is not None and pattern.search(blocks_lib.name(place))
    for place, *_ in tied.form.paths
  )
  if pattern is not None and not used and set(tied.gates) != {1.0}:
    raise ValueError(
      f"program: gated='{tied.gated}' matches no leaf of a block, such as "
      f"'{blocks_lib.name(tied.form.paths[0][0])}'"
    )
  result = []
  for number, own, gate in zip(tied.layers, tied.own, tied.gates, strict=True):
    block = dict(tied.shared[number])
    for place, leaf in own.items():
      if isinstance(leaf, deltas.Factors):
        block[place] = tree.apply_kernel(_add, block[place], deltas.dense(leaf))
      else:
        block[place] = leaf
    for place, leaf in block.items():
      gates = pattern is not None and pattern.search(blocks_lib.name(place))
      if gate != 1 and gates and tree.is_float(leaf):
        block[place] = tree.apply_kernel(_scale, leaf, gate=gate)
    result.append(block)
  return blocks_lib.join(result, tied.outside, tied.form)


def _mean(i: int, sources: Sequence[blocks_lib.Block]) -> blocks_lib.Block:
  """Returns the mean of blocks; integers are those of the first."""
  first = sources[0]
  if all(block is first for block in sources):
    return first
  for block in sources[1:]:
    residual.check_alike(i, first, block)
  return {
    place: tree.apply_kernel(_average, *(block[place] for block in sources))
    if tree.is_float(leaf)
    else leaf
    for place, leaf in first.items()
  }


def _own(
  i: int,
  layer: program_lib.Layer,
  program: program_lib.Program,
  shared: blocks_lib.Block,
  blocks: Sequence[blocks_lib.Block],
  matrices: tree.Matrices | None,
) -> blocks_lib.Block:
  """Returns the untied leaves of a layer, and the factors of its residual."""
  if layer.own is None:
    return {}
  block = blocks[layer.own]
  if block is shared:
    return {}
  # An own leaf is exact, so that it needs no residual.
  pattern = None if program.untied is None else tree.compiled(program.untied)
  own = {
    place: leaf
    for place, leaf in block.items()
    if pattern is not None and pattern.search(blocks_lib.name(place))
  }
  if pattern is not None and not own:
    raise ValueError(
      f"program: untied='{program.untied}' matches no leaf of block "
      f"{layer.own}, such as '{blocks_lib.name(next(iter(block)))}'"
    )
  if own or layer.rank:
    residual.check_alike(i, shared, block)
  if layer.rank:
    rest = {place: leaf for place, leaf in block.items() if place not in own}
    own |= residual.factors(layer.rank, rest, shared, matrices)
  return own


def _average(*leaves: types.Array) -> types.Array:
  """Returns the mean of leaves in float32 or wider, in their dtype."""
  wide = [tree.wide(x) for x in leaves]
  # Residuals are those of the rounded mean.
  return tree.narrow(sum(wide[1:], wide[0]) / len(wide), leaves[0].dtype)


def _add(x: types.Array, delta: types.Array) -> types.Array:
  """Adds a residual to shared weights, in their dtype."""
  wide, delta = tree.widen(x, delta)
  return (wide + delta).astype(x.dtype)


def _scale(x: types.Array, *, gate: types.Scalar) -> types.Array:
  """Multiplies gated weights by their gate, in their dtype."""
  wide = tree.wide(x)
  return (wide * jnp.asarray(gate).astype(wide.dtype)).astype(x.dtype)
