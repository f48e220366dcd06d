"""How a model is trained: alone, or to be read beside an older one."""

from collections.abc import Callable, Mapping
import functools
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from wsl import models, scale, stitch, types


class Stage(NamedTuple):
  """What a recipe is made for.

  Attributes:
    config: the run's.
    hidden: size of the hidden layer.
    classes: how many there are to be told apart in the end.
    image: one image, ``[1, ...]``, for its shape.
    labels: of the stage's training images, ``[N]``.
    old: features of these images by the model before, ``[S, N, w]``; None in
      the first stage.
    alone: features by a model of the same stage that was trained alone.
  """

  config: ml_collections.ConfigDict
  hidden: int
  classes: int
  image: types.Array
  labels: types.Array
  old: types.Array | None
  alone: types.Array | None


class Recipe(NamedTuple):
  """What the training of one stage needs.

  Attributes:
    start: maps a key to parameters.
    loss: maps (bound, params, batch, key) to a scalar.
    features: maps (params, images) to features ``[B, width]``.
    bound: what is bound in the loss of each seed, leaves ``[S, ...]``.
    targets: features that come with the examples, each ``[S, N, w]``.
  """

  start: Callable[[types.PRNGKey], types.Params]
  loss: Callable[..., types.Array]
  features: Callable[[types.Params, types.Array], types.Array]
  bound: types.Tree = ()
  targets: tuple[types.Array, ...] = ()


def independent(stage: Stage) -> Recipe:
  """Cross-entropy alone, from another seed."""
  body, start = _network(stage, stage.config.width, head=True)
  both = functools.partial(_classify, stage.config, body)
  plain = scale.supervised(lambda params, x: both(params, x)[1])
  return Recipe(start, lambda bound, *rest: plain(*rest), body)


def bct(stage: Stage) -> Recipe:
  """The old classifier judges the new features too."""
  if stage.old is None:
    return independent(stage)
  body, start = _network(stage, stage.config.width, head=True)
  both = functools.partial(_classify, stage.config, body)
  options = stage.config.bct

  def loss(classifier: types.Array, *rest: Any) -> types.Array:
    return stitch.bct_loss(both, classifier, **options)(*rest)

  return Recipe(start, loss, body, _old_classifiers(stage))


def bt2(stage: Stage) -> Recipe:
  """Old features are predicted too, and rotated in beside the new ones."""
  if stage.old is None or stage.alone is None:
    return independent(stage)
  config, old = stage.config, stage.old.shape[-1]
  width, extra = config.width, max(config.basis.extra, old - config.width)
  body, start = _network(stage, width + old, head=True)

  def begin(key: types.PRNGKey) -> types.Params:
    basis = stitch.random_basis(
      jax.random.fold_in(key, 1),
      new=width,
      old=old,
      extra=extra,
      scale=config.basis.scale,
      kind=config.basis.kind,
    )
    return start(key), basis

  def parts(params: types.Params, x: types.Array) -> Any:
    z = body(params, x)
    new = z[:, :width]
    return new, z[:, width:], _logits(config, new, params['head'])

  def features(params: types.Params, x: types.Array) -> types.Array:
    network, basis = params
    new, predicted, _ = parts(network, x)
    recoded: types.Array = stitch.basis_transform(basis, new, predicted)
    return recoded

  def loss(classifier: types.Array, *rest: Any) -> types.Array:
    weights = tuple(config.bt2.weights)
    return stitch.bt2_loss(parts, classifier, weights=weights)(*rest)

  targets = (stage.alone, stage.old)
  return Recipe(begin, loss, features, _old_classifiers(stage), targets)


def simplex(stage: Stage) -> Recipe:
  """Cross-entropy with a classifier that every stage shares."""
  body, start = _network(stage, stage.config.width, head=False)
  both = functools.partial(_classify, stage.config, body)
  plain = scale.supervised(lambda params, x: both(params, x)[1])
  return Recipe(start, lambda bound, *rest: plain(*rest), body)


def simplex_hoc(stage: Stage) -> Recipe:
  """The same, and every image near its own old features."""
  if stage.old is None:
    return simplex(stage)
  body, start = _network(stage, stage.config.width, head=False)
  both = functools.partial(_classify, stage.config, body)
  contrast = stitch.hoc_loss(both, **stage.config.hoc)
  return Recipe(
    start, lambda bound, *rest: contrast(*rest), body, targets=(stage.old,)
  )


RECIPES: Mapping[str, Callable[[Stage], Recipe]] = MappingProxyType(
  {
    'independent': independent,
    'bct': bct,
    'bt2': bt2,
    'simplex': simplex,
    'simplex_hoc': simplex_hoc,
  }
)


def _network(stage: Stage, outputs: int, *, head: bool) -> tuple[Any, Any]:
  """Returns features as a function of (params, images), and its start."""
  module = models.MLP(widths=(stage.hidden,), outputs=outputs)
  body = lambda params, x: module.apply({'params': params['body']}, x)

  def start(key: types.PRNGKey) -> types.Params:
    keys = jax.random.split(key)
    params = {'body': module.init(keys[0], stage.image)['params']}
    if head:
      shape = (stage.config.width, stage.classes)
      drawn = jax.random.normal(keys[1], shape, jnp.float32)
      params['head'] = drawn / stage.config.width**0.5
    return params

  return body, start


def _classify(
  config: ml_collections.ConfigDict,
  body: Callable[[types.Params, types.Array], types.Array],
  params: types.Params,
  x: types.Array,
) -> tuple[types.Array, types.Array]:
  """Returns features and logits; without a head they are the simplex's."""
  n = body(params, x)
  head = params.get('head', stitch.simplex(config.width + 1).T)
  return n, _logits(config, n, head)


def _logits(
  config: ml_collections.ConfigDict, n: types.Array, head: types.Array
) -> types.Array:
  """Logits of directions: the length of a feature says nothing."""
  length = jnp.linalg.norm(n, axis=-1, keepdims=True)
  return config.sharpness * (n / jnp.maximum(length, 1e-6)) @ head


def _old_classifiers(stage: Stage) -> types.Array:
  """Returns the mean old direction of each class, for each seed."""
  return jax.vmap(
    lambda features: stitch.class_means(
      features, stage.labels, classes=stage.classes
    )
  )(stage.old)
