"""Applies programs to parameters, checkpoints and segmented networks."""

import dataclasses
from typing import Any, overload

from wsl import stitch, tree, types
from wsl.surgery._program import program as program_lib
from wsl.surgery._program import tie as tie_lib


@overload
def apply_program(
  params: stitch.Segmented,
  program: program_lib.Program,
  *,
  blocks: str | None = ...,
  matrices: tree.Matrices | None = ...,
) -> stitch.Segmented: ...


@overload
def apply_program(
  params: types.Params,
  program: program_lib.Program,
  *,
  blocks: str | None = ...,
  matrices: tree.Matrices | None = ...,
) -> types.Params: ...


def apply_program(
  params: Any,
  program: program_lib.Program,
  *,
  blocks: str | None = None,
  matrices: tree.Matrices | None = None,
) -> Any:
  r"""Returns the network that a program makes of a network's blocks.

  .. math:: h_{l+1} = \mathrm{block}(W_l, h_l), \qquad W_l = g_l
    \Big(\frac{1}{|S_l|} \sum_{s \in S_l} W_s + B_l A_l \Big)

  It is ``untie(tie(...))``. Leaves that are copied are the same arrays, or
  leaves on demand; nothing is read. So ``checkpoint.save`` of the result of
  ``checkpoint.load(lazy=True)`` holds one leaf at a time. Numbers in names are
  those of the new layers. The number of layers in a model's config is the
  caller's: ``len(program.layers)``.

  Args:
    params: a ``stitch.Segmented``; or any pytree of dicts, lists and tuples, in
      memory, traced or on demand.
    program: for networks of as many blocks.
    blocks: a regular expression whose group captures the number of a block in
      the names of its leaves, ``r'layers[./](\d+)[./]'``; without a group, the
      leaves in which blocks are stacked ``[D, ...]``. None for a ``Segmented``.
    matrices: which leaves of a block have residuals, as in ``tree.views``:
      ``tree.torch`` for names of PyTorch. Used if a layer has a rank.

  Returns:
    The new network, in nested dicts and lists or as a ``Segmented``; each leaf
    in its dtype.

  Raises:
    ValueError: in one line, before anything is read, if the program is for
      another number of blocks, names a block that is not there, or averages
      blocks that differ in their leaves.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import surgery
    >>> params = {f'layers.{i}.w': jnp.full(1, float(i)) for i in range(3)}
    >>> program = surgery.passthrough(3, slices=[(0, 2), (1, 3)])
    >>> new = apply_program(params, program, blocks=r'layers\.(\d+)\.')
    >>> {name: x.item() for name, x in new.items()}
    {'layers.0.w': 0.0, 'layers.1.w': 1.0, 'layers.2.w': 1.0, 'layers.3.w': 2.0}
  """
  if isinstance(params, stitch.Segmented):
    return _segmented(params, program, matrices)
  if blocks is None:
    raise ValueError(
      'apply_program: blocks= is missing: the regular expression of the number '
      r"of a block in the names of its leaves, such as r'block_(\d+)/'"
    )
  tied = tie_lib.tie(params, program, blocks=blocks, matrices=matrices)
  return tie_lib.untie(tied)


def _segmented(
  model: stitch.Segmented,
  program: program_lib.Program,
  matrices: tree.Matrices | None,
) -> stitch.Segmented:
  """Applies a program to the blocks of a segmented network."""
  pattern = r'^blocks(?:/|$)' if model.stacked else r'^blocks/(\d+)(?:/|$)'
  tied = tie_lib.tie(model.params, program, blocks=pattern, matrices=matrices)
  new = tie_lib.untie(tied)
  params = {part: new.get(part, model.params[part]) for part in model.params}
  block: Any = model.block
  if isinstance(model.block, tuple):
    block = tuple(_function(model.block, x) for x in enumerate(program.layers))
  return dataclasses.replace(model, params=params, block=block)


def _function(
  functions: tuple[Any, ...], numbered: tuple[int, program_lib.Layer]
) -> Any:
  """Returns the function of a layer, which all its sources share."""
  i, layer = numbered
  first = functions[layer.sources[0]]
  if any(functions[s] != first for s in layer.sources):
    raise ValueError(
      f'program: layer {i} averages blocks {layer.sources} of different '
      'functions: average blocks of one kind'
    )
  return first
