"""The functions of each model's parts; equal parts compare equal."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn

from wsl import types
from wsl.models import (
  _cifar_resnet,
  _functions,
  _language,
  _mlp,
  _resnet,
  _vit,
)


@dataclasses.dataclass(frozen=True)
class Part:
  """A function of (params, inputs), bound to a Flax module.

  Attributes:
    fn: a module-level function of (module, params, inputs).
    module: the Flax module that it reads or applies, without parameters.
    keeps: whether the result has the shape of the input.
  """

  fn: Callable[[Any, types.Params, Any], types.Array]
  module: nn.Module
  keeps: bool = True

  def __call__(self, params: types.Params, inputs: Any) -> types.Array:
    """Computes the part."""
    return self.fn(self.module, params, inputs)


class Parts(NamedTuple):
  """A model's parts, and the subtrees of its embedding and head.

  Attributes:
    embed: the function before the blocks.
    embed_names: the names of its subtrees.
    blocks: one function for each ``block_i``.
    head: the function after the blocks.
    head_names: the names of its subtrees.
    moments: whether the model has running moments.
  """

  embed: Part
  embed_names: tuple[str, ...]
  blocks: tuple[Part, ...]
  head: Part
  head_names: tuple[str, ...]
  moments: bool = False


def parts(module: nn.Module) -> Parts:
  """Returns the parts of a model of this room.

  Raises:
    ValueError: if it is not a model of this room.
  """
  for kind, cut in _CUTS:
    if type(module) is kind:
      return cut(module)
  names = [kind.__name__ for kind, _ in _CUTS]
  raise ValueError(
    f'segments: {type(module).__name__} is none of {names}: cut it by '
    'wsl.stitch.cut'
  )


def _mlp_parts(module: _mlp.MLP) -> Parts:
  """Cuts a perceptron: flattening, one block per hidden layer, the output."""
  blocks = tuple(
    Part(_functions.run, _mlp.Block(width, module.norm))
    for width in module.widths
  )
  return Parts(
    Part(_functions.mlp_embed, module),
    (),
    blocks,
    Part(_functions.output, module),
    ('output',),
  )


def _resnet_parts(module: _resnet.ResNet) -> Parts:
  """Cuts a ``ResNet``; pooling is part of the first dense block."""
  norm = _resnet.Norm(module.norm, module.groups)
  blocks = []
  for i, width in enumerate(module.widths):
    side = 3 if i else module.stem
    down = _resnet.Downsample(width, side, norm)
    blocks.append(Part(_functions.run, down, keeps=False))
    blocks += [Part(_functions.run, _resnet.Residual(norm))] * module.depth
  first = {'mean': _functions.run_on_mean, 'flatten': _functions.run_on_flat}[
    module.pool
  ]
  for i, width in enumerate(module.dense):
    fn = _functions.run if i else first
    blocks.append(Part(fn, _resnet.DenseBlock(width), keeps=bool(i)))
  return Parts(
    Part(_functions.resnet_embed, module),
    (),
    tuple(blocks),
    Part(_functions.resnet_head, module),
    () if module.outputs is None else ('output',),
    moments=module.norm == 'batch',
  )


def _cifar_parts(module: _cifar_resnet.CifarResNet) -> Parts:
  """Cuts a ``CifarResNet``: stem, residual blocks, pooling and output."""
  blocks = tuple(
    Part(_functions.run, _cifar_resnet.Block(features, stride), keeps=False)
    for features, stride in _cifar_resnet.plan(module.depth, module.widths)
  )
  return Parts(
    Part(_functions.cifar_embed, module),
    ('stem',),
    blocks,
    Part(_functions.cifar_head, module),
    ('output',),
    moments=True,
  )


def _vit_parts(module: _vit.ViT) -> Parts:
  """Cuts a ``ViT``: patch embedding, blocks, norm and output."""
  blocks = tuple(
    Part(_functions.run, _vit.block(module, i)) for i in range(module.depth)
  )
  return Parts(
    Part(_functions.vit_embed, module),
    ('embedding', 'position'),
    blocks,
    Part(_functions.vit_head, module),
    ('norm', 'output'),
  )


def _language_parts(module: _language.LanguageModel) -> Parts:
  """Cuts a ``LanguageModel``; a tied table is in the embedding and the head."""
  groups = module.heads if module.groups is None else module.groups
  block = _language.Block(
    module.heads,
    groups,
    module.hidden,
    module.wavelength,
    module.experts,
    module.top_k,
    module.capacity,
  )
  return Parts(
    Part(_functions.language_embed, module),
    ('embedding',),
    (Part(_functions.run, block),) * module.depth,
    Part(_functions.language_head, module),
    ('norm', 'embedding' if module.tied else 'output'),
  )


_CUTS: tuple[tuple[type[nn.Module], Callable[[Any], Parts]], ...] = (
  (_mlp.MLP, _mlp_parts),
  (_resnet.ResNet, _resnet_parts),
  (_cifar_resnet.CifarResNet, _cifar_parts),
  (_vit.ViT, _vit_parts),
  (_language.LanguageModel, _language_parts),
)
