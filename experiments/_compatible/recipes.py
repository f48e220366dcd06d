"""Recipes: training independent of, or compatible with, an older model."""

from collections.abc import Callable, Mapping
import functools
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from wsl import models, scale, stitch, types


class Stage(NamedTuple):
  """The stage of a chain that a recipe trains.

  Attributes:
    config: of the run.
    hidden: size of the hidden layer.
    classes: the number of classes of the last stage.
    image: one image, ``[1, ...]``, for its shape.
    labels: of the stage's training images, ``[N]``.
    old: their features by the previous model, ``[S, N, w]``; None in the first
      stage.
    alone: their features by the independent model of the same stage.
  """

  config: ml_collections.ConfigDict
  hidden: int
  classes: int
  image: types.Array
  labels: types.Array
  old: types.Array | None
  alone: types.Array | None


class Recipe(NamedTuple):
  """Model and loss of one stage.

  Attributes:
    start: maps a key to parameters.
    loss: maps (bound, params, batch, key) to a scalar.
    features: maps (params, images) to features ``[B, width]``.
    bound: first argument of the loss for each seed, leaves ``[S, ...]``.
    targets: features in the batches, after images and labels; ``[S, N, w]``.
  """

  start: Callable[[types.PRNGKey], types.Params]
  loss: Callable[..., types.Array]
  features: Callable[[types.Params, types.Array], types.Array]
  bound: types.Tree = ()
  targets: tuple[types.Array, ...] = ()


def independent(stage: Stage) -> Recipe:
  """Minimises cross-entropy only."""
  return _supervised(stage, head=True)


def bct(stage: Stage) -> Recipe:
  """Classifies the new features with the old classifier too (BCT)."""
  body, start, both = _classifier(stage, head=True)
  options = stage.config.bct

  def loss(classifier: types.Array, *rest: Any) -> types.Array:
    return stitch.bct_loss(both, classifier, **options)(*rest)

  return Recipe(start, loss, body, _old_classifiers(stage))


def bt2(stage: Stage) -> Recipe:
  """Predicts old features, and rotates them together with the new (BT²)."""
  assert stage.old is not None
  assert stage.alone is not None
  config, old = stage.config, stage.old.shape[-1]
  # The recoded features need room for all old dimensions.
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
  """Minimises cross-entropy with a fixed classifier, common to all stages."""
  return _supervised(stage, head=False)


def simplex_hoc(stage: Stage) -> Recipe:
  """Adds a contrastive loss towards the old features (HOC)."""
  body, start, both = _classifier(stage, head=False)
  assert stage.old is not None
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
# The first stage has no old features.
FIRST: Mapping[str, Callable[[Stage], Recipe]] = MappingProxyType(
  {'bct': independent, 'bt2': independent, 'simplex_hoc': simplex}
)


def _supervised(stage: Stage, *, head: bool) -> Recipe:
  """Returns plain cross-entropy training."""
  body, start, both = _classifier(stage, head=head)
  plain = scale.supervised(lambda params, x: both(params, x)[1])
  return Recipe(start, lambda bound, *rest: plain(*rest), body)


def _classifier(stage: Stage, *, head: bool) -> tuple[Any, Any, Any]:
  """Returns features, initialiser, and features with logits, as functions."""
  body, start = _network(stage, stage.config.width, head=head)
  return body, start, functools.partial(_classify, stage.config, body)


def _network(stage: Stage, outputs: int, *, head: bool) -> tuple[Any, Any]:
  """Returns features as a function of (params, images), and its initialiser."""
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
  """Returns features and logits, without a head those of the simplex."""
  n = body(params, x)
  head = params.get('head', stitch.simplex(config.width + 1).T)
  return n, _logits(config, n, head)


def _logits(
  config: ml_collections.ConfigDict, n: types.Array, head: types.Array
) -> types.Array:
  """Returns the logits of normalised features."""
  length = jnp.linalg.norm(n, axis=-1, keepdims=True)
  return config.sharpness * (n / jnp.maximum(length, 1e-6)) @ head


def _old_classifiers(stage: Stage) -> types.Array:
  """Returns the mean old direction of each class, for each seed."""
  return jax.vmap(
    lambda features: stitch.class_means(
      features, stage.labels, classes=stage.classes
    )
  )(stage.old)
