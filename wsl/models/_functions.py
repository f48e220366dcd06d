"""The functions of parts: a Flax module on a subtree of the parameters.

Each takes (module, params, inputs). ``params`` are a part's parameters, or its
variables if it has running moments.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _cifar_resnet, _language, _layers, _resnet, _vit


def run(module: nn.Module, params: types.Params, h: Any) -> types.Array:
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


def output(module: Any, params: types.Params, h: types.Array) -> types.Array:
  return _on(_layers.Dense(module.outputs), params, 'output', h)


def mlp_embed(_: nn.Module, params: types.Params, x: Any) -> types.Array:
  del params
  return jnp.reshape(x, (jnp.shape(x)[0], -1))


def resnet_embed(_: nn.Module, params: types.Params, x: Any) -> types.Array:
  del params
  return tree.widen(x)[0]


def run_on_mean(module: nn.Module, params: types.Params, h: Any) -> types.Array:
  return run(module, params, _resnet.pooled(h, pool='mean'))


def run_on_flat(module: nn.Module, params: types.Params, h: Any) -> types.Array:
  return run(module, params, _resnet.pooled(h, pool='flatten'))


def resnet_head(
  module: _resnet.ResNet, params: types.Params, h: types.Array
) -> types.Array:
  if not module.dense:
    h = _resnet.pooled(h, pool=module.pool)
  return h if module.outputs is None else output(module, params, h)


def cifar_embed(
  module: _cifar_resnet.CifarResNet, params: types.Params, x: Any
) -> types.Array:
  return _on(_cifar_resnet.Stem(module.widths[0]), params, 'stem', x)


def cifar_head(
  module: _cifar_resnet.CifarResNet, params: types.Params, h: types.Array
) -> types.Array:
  return output(module, params, _cifar_resnet.pool(h))


def vit_embed(module: _vit.ViT, params: types.Params, x: Any) -> types.Array:
  tokens = _vit.tokenize(jnp.asarray(x), patch=module.patch)
  h = _on(_layers.Dense(module.width), params, 'embedding', tokens)
  h, position = tree.widen(h, _leaf(params, 'position'))
  return h + position[None]


def vit_head(
  module: _vit.ViT, params: types.Params, h: types.Array
) -> types.Array:
  h = _on(_layers.LayerNorm(), params, 'norm', h)
  return output(module, params, _vit.pooled(h, pool=module.pool))


def language_embed(
  module: _language.LanguageModel, params: types.Params, tokens: Any
) -> types.Array:
  return _on(_table(module), params, 'embedding', jnp.asarray(tokens))


def language_head(
  module: _language.LanguageModel, params: types.Params, h: types.Array
) -> types.Array:
  h = _on(_language.RMSNorm(), params, 'norm', h)
  if module.tied:
    return _on(_table(module), params, 'embedding', h, method='attend')
  output = _layers.Dense(module.vocabulary, bias=False)
  return _on(output, params, 'output', h)


def _table(module: _language.LanguageModel) -> _language.Embedding:
  return _language.Embedding(module.vocabulary, module.width)
