"""Cuts the models of this room into embedding, blocks and head."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _parts

PartFn: TypeAlias = Callable[[types.Params, Any], types.Array]


class Segments(NamedTuple):
  """A network's parts: ``wsl.stitch.Segmented(*segments)`` is the network.

  Attributes:
    params: ``{'embed': tree, 'blocks': ..., 'head': tree}``; ``blocks`` is a
      tree of leaves ``[D, ...]``, or a tuple of D trees.
    embed: maps (params, inputs) to the value before the first block.
    block: maps (params, h) to h: one function where the blocks are stacked,
      or a tuple of D functions.
    head: maps (params, h) to outputs.
  """

  params: types.Params
  embed: PartFn
  block: PartFn | tuple[PartFn, ...]
  head: PartFn


def segments(module: nn.Module, params: types.Params) -> Segments:
  """Cuts a model of this room between its blocks.

  Blocks are the subtrees ``block_0``, ``block_1``, ...; pooling between two
  blocks is part of the second. Blocks of one module and one set of shapes are
  stacked.

  Batch normalisation is in evaluation mode: give ``{'params', 'batch_stats'}``,
  and each part has its subtrees of both. A tied table of a ``LanguageModel`` is
  in the embedding and in the head: training both unties them.

  Args:
    module: an ``MLP``, ``ResNet``, ``CifarResNet``, ``ViT`` or
      ``LanguageModel``.
    params: its parameters; or its variables ``{'params': ...}``, with
      ``'batch_stats'`` where it has them; the parts have the same form.

  Returns:
    The parameters and the functions of the parts.

  Raises:
    ValueError: if the model is none of these, or leaves are missing or left
      over.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import models
    >>> model = models.ViT(outputs=10, depth=3)
    >>> x = jnp.ones((1, 28, 28, 1))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    >>> parts = jax.eval_shape(lambda p: segments(model, p).params, params)
    >>> sorted(parts['embed']), sorted(parts['head'])
    (['embedding', 'position'], ['norm', 'output'])
    >>> parts['blocks']['mlp']['up']['kernel'].shape
    (3, 64, 128)
  """
  parts = _parts.parts(module)
  plain = 'params' not in params
  variables = {'params': params} if plain else params
  _check(module, parts, variables)

  def of(part: tuple[str, ...]) -> types.Params:
    found = {
      kind: {name: share[name] for name in part if name in share}
      for kind, share in variables.items()
    }
    return found['params'] if plain else found

  def block(name: str) -> types.Params:
    found = {
      kind: share[name] for kind, share in variables.items() if name in share
    }
    return found['params'] if plain else found

  blocks = [block(f'block_{i}') for i in range(len(parts.blocks))]
  stacked = _agree(parts.blocks, blocks)
  cut = {
    'embed': of(parts.embed_names),
    'blocks': tree.stack(blocks) if stacked else tuple(blocks),
    'head': of(parts.head_names),
  }
  one = parts.blocks[0] if stacked else parts.blocks
  return Segments(cut, parts.embed, one, parts.head)


def _agree(fns: tuple[_parts.Part, ...], blocks: list[types.Params]) -> bool:
  """Returns True if the blocks can be scanned.

  They need one function, equal parameter shapes, and outputs of the shape of
  their inputs.
  """
  forms = [
    (
      jax.tree.structure(b),
      [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(b)],
    )
    for b in blocks
  ]
  return (
    bool(blocks)
    and fns[0].keeps
    and all(fn == fns[0] for fn in fns)
    and all(form == forms[0] for form in forms)
  )


def _check(
  module: nn.Module, parts: _parts.Parts, variables: types.Params
) -> None:
  """Checks that the parts use each subtree of the variables, and no other."""
  label = type(module).__name__
  blocks = [f'block_{i}' for i in range(len(parts.blocks))]
  names = [*parts.embed_names, *blocks, *parts.head_names]
  if parts.moments and 'batch_stats' not in variables:
    raise ValueError(
      f'segments: {label} has batch normalisation: give its variables '
      "{'params', 'batch_stats'}, with the running moments"
    )
  found = [name for share in variables.values() for name in share]
  for name in names:
    if name not in found:
      hint = tree.nearest(name, found)
      raise ValueError(f"segments: {label} lacks its part '{name}'{hint}")
  for name in found:
    if name not in names:
      hint = tree.nearest(name, names)
      raise ValueError(f"segments: {label} has no part '{name}'{hint}")
