"""The functions of each model's parts; equal parts compare equal."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import (
  _cifar_resnet,
  _language,
  _layers,
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
    Part(_run, _mlp.Block(width, module.norm)) for width in module.widths
  )
  return Parts(
    Part(_mlp_embed, module), (), blocks, Part(_output, module), ('output',)
  )


def _resnet_parts(module: _resnet.ResNet) -> Parts:
  """Cuts a ``ResNet``; pooling is part of the first dense block."""
  norm = _resnet.Norm(module.norm, module.groups)
  blocks = []
  for i, width in enumerate(module.widths):
    side = 3 if i else module.stem
    down = _resnet.Downsample(width, side, norm)
    blocks.append(Part(_run, down, keeps=False))
    blocks += [Part(_run, _resnet.Residual(norm))] * module.depth
  first = {'mean': _run_on_mean, 'flatten': _run_on_flat}[module.pool]
  for i, width in enumerate(module.dense):
    fn = _run if i else first
    blocks.append(Part(fn, _resnet.DenseBlock(width), keeps=bool(i)))
  return Parts(
    Part(_resnet_embed, module),
    (),
    tuple(blocks),
    Part(_resnet_head, module),
    () if module.outputs is None else ('output',),
    moments=module.norm == 'batch',
  )


def _cifar_parts(module: _cifar_resnet.CifarResNet) -> Parts:
  """Cuts a ``CifarResNet``: stem, residual blocks, pooling and output."""
  blocks = tuple(
    Part(_run, _cifar_resnet.Block(features, stride), keeps=False)
    for features, stride in _cifar_resnet.plan(module.depth, module.widths)
  )
  return Parts(
    Part(_cifar_embed, module),
    ('stem',),
    blocks,
    Part(_cifar_head, module),
    ('output',),
    moments=True,
  )


def _vit_parts(module: _vit.ViT) -> Parts:
  """Cuts a ``ViT``: patch embedding, equal blocks, norm and output."""
  block = Part(_run, _vit.Block(module.heads, module.expansion))
  return Parts(
    Part(_vit_embed, module),
    ('embedding', 'position'),
    (block,) * module.depth,
    Part(_vit_head, module),
    ('norm', 'output'),
  )


def _language_parts(module: _language.LanguageModel) -> Parts:
  """Cuts a ``LanguageModel``; a tied table is in the embedding and the head."""
  groups = module.heads if module.groups is None else module.groups
  block = _language.Block(
    module.heads, groups, module.hidden, module.wavelength
  )
  return Parts(
    Part(_language_embed, module),
    ('embedding',),
    (Part(_run, block),) * module.depth,
    Part(_language_head, module),
    ('norm', 'embedding' if module.tied else 'output'),
  )


_CUTS: tuple[tuple[type[nn.Module], Callable[[Any], Parts]], ...] = (
  (_mlp.MLP, _mlp_parts),
  (_resnet.ResNet, _resnet_parts),
  (_cifar_resnet.CifarResNet, _cifar_parts),
  (_vit.ViT, _vit_parts),
  (_language.LanguageModel, _language_parts),
)


def _run(module: nn.Module, params: types.Params, h: Any) -> types.Array:
  """Applies a module to a part's parameters or variables."""
  variables = params if 'params' in params else {'params': params}
  return jnp.asarray(module.apply(variables, h))


def _on(
  module: nn.Module,
  params: types.Params,
  name: str,
  h: Any,
  *,
  method: str | None = None,
) -> types.Array:
  """Applies a module to its subtree of a part's parameters."""
  variables = params if 'params' in params else {'params': params}
  own = {k: share[name] for k, share in variables.items() if name in share}
  return jnp.asarray(module.apply(own, h, method=method))


def _leaf(params: types.Params, name: str) -> types.Array:
  leaf: types.Array = params.get('params', params)[name]
  return leaf


def _output(module: Any, params: types.Params, h: types.Array) -> types.Array:
  return _on(_layers.Dense(module.outputs), params, 'output', h)


def _mlp_embed(_: nn.Module, params: types.Params, x: Any) -> types.Array:
  del params
  return jnp.reshape(x, (jnp.shape(x)[0], -1))


def _resnet_embed(_: nn.Module, params: types.Params, x: Any) -> types.Array:
  del params
  return tree.widen(x)[0]


def _run_on_mean(
  module: nn.Module, params: types.Params, h: Any
) -> types.Array:
  return _run(module, params, _resnet.pooled(h, pool='mean'))


def _run_on_flat(
  module: nn.Module, params: types.Params, h: Any
) -> types.Array:
  return _run(module, params, _resnet.pooled(h, pool='flatten'))


def _resnet_head(
  module: _resnet.ResNet, params: types.Params, h: types.Array
) -> types.Array:
  if not module.dense:
    h = _resnet.pooled(h, pool=module.pool)
  return h if module.outputs is None else _output(module, params, h)


def _cifar_embed(
  module: _cifar_resnet.CifarResNet, params: types.Params, x: Any
) -> types.Array:
  return _on(_cifar_resnet.Stem(module.widths[0]), params, 'stem', x)


def _cifar_head(
  module: _cifar_resnet.CifarResNet, params: types.Params, h: types.Array
) -> types.Array:
  return _output(module, params, _cifar_resnet.pool(h))


def _vit_embed(module: _vit.ViT, params: types.Params, x: Any) -> types.Array:
  tokens = _vit.tokenize(jnp.asarray(x), patch=module.patch)
  h = _on(_layers.Dense(module.width), params, 'embedding', tokens)
  h, position = tree.widen(h, _leaf(params, 'position'))
  return h + position[None]


def _vit_head(
  module: _vit.ViT, params: types.Params, h: types.Array
) -> types.Array:
  h = _on(_layers.LayerNorm(), params, 'norm', h)
  return _output(module, params, _vit.pooled(h, pool=module.pool))


def _language_embed(
  module: _language.LanguageModel, params: types.Params, tokens: Any
) -> types.Array:
  return _on(_table(module), params, 'embedding', jnp.asarray(tokens))


def _language_head(
  module: _language.LanguageModel, params: types.Params, h: types.Array
) -> types.Array:
  h = _on(_language.RMSNorm(), params, 'norm', h)
  if module.tied:
    return _on(_table(module), params, 'embedding', h, method='attend')
  output = _layers.Dense(module.vocabulary, bias=False)
  return _on(output, params, 'output', h)


def _table(module: _language.LanguageModel) -> _language.Embedding:
  return _language.Embedding(module.vocabulary, module.width)
