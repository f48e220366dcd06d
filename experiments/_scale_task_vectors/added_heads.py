"""Heads for few labels on top of an encoder: Tip-Adapter and LP++.

Both add to the logits of the task's own head. They are trained on the base, or
together with (Tip-Adapter) or after (LP++) coefficients of task vectors, as in
the paper's table of few shots.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from experiments._scale_task_vectors import few_label_training
from experiments._shared import suites
from wsl import scale, tree, types

# The paper's learning rate of the cache, relative to that of the scales.
_KEY_RATE = 1e-2
_PROBE_STEPS = 300


def frozen(suite: suites.Suite) -> few_label_training.Trained:
  """Trains nothing: the base and the task's head."""
  return few_label_training.Trained(
    lambda bound, key: {},
    lambda bound, params: (bound['base'], bound['head']),
    suite.config.rates.coefs,
    0,
  )


def tip_adapter(
  suite: suites.Suite, inner: few_label_training.Trained
) -> few_label_training.Trained:
  """Trains the cache of Tip-Adapter and its two scales, with ``inner``.

  The keys start at the features of the base. An image that a run repeats to
  fill its rows is in the cache as often, so votes are divided by the repeats.
  """
  classes, width = suite.tasks.classes, _width(suite)

  def start(bound: Any, key: types.PRNGKey) -> types.Tree:
    x, y = bound['shots']
    features = suite.encode(bound['base'], x[jnp.argsort(y, stable=True)])
    one = jnp.ones((), features.dtype)
    return {
      'inner': inner.start(bound, key),
      'keys': tree.unit(features) / _KEY_RATE,
      'alpha': 2 * one,
      'beta': one,
    }

  def logits(
    encode: Any, bound: Any, params: types.Tree, x: types.Array
  ) -> types.Array:
    features, plain = _features(inner, encode, bound, params['inner'], x)
    # Every class has the same number of rows, and they are sorted by class.
    each = len(params['keys']) // classes
    head = scale.TipAdapter(
      keys=params['keys'] * _KEY_RATE,
      alpha=params['alpha'] / bound['repeats'],
      beta=params['beta'],
      labels=tuple(c for c in range(classes) for _ in range(each)),
      classes=classes,
    )
    return scale.tip_logits(head, features, plain)

  keys = max(suite.config.few_shot.shots) * classes
  return few_label_training.Trained(
    start,
    inner.build,
    inner.rate,
    inner.size + keys * width + 2,
    f'a cache of up to {keys} features',
    logits,
  )


def linear_probe(
  suite: suites.Suite, inner: few_label_training.Trained
) -> few_label_training.Trained:
  """Trains ``inner``, then LP++ on its features.

  Features are unit vectors, and the zero-shot logits of LP++ are their cosines
  with the columns of the task's head.
  """

  def start(bound: Any, key: types.PRNGKey) -> types.Tree:
    return {'inner': inner.start(bound, key), 'probe': None}

  def cosines(
    encode: Any, bound: Any, params: types.Tree, x: types.Array
  ) -> tuple[types.Array, types.Array]:
    encoder, head = inner.build(bound, params)
    features = tree.unit(encode(encoder, x))
    return features, features @ tree.unit(head['kernel'].T).T

  def logits(
    encode: Any, bound: Any, params: types.Tree, x: types.Array
  ) -> types.Array:
    if params['probe'] is None:
      return _features(inner, encode, bound, params['inner'], x)[1]
    features, z = cosines(encode, bound, params['inner'], x)
    return scale.probe_logits(params['probe'], features, z)

  def finish(encode: Any, bound: Any, params: types.Tree) -> types.Tree:
    x, y = bound['shots']
    features, z = cosines(encode, bound, params['inner'], x)
    return params | {'probe': _descend(features, y, z)}

  return few_label_training.Trained(
    start,
    inner.build,
    inner.rate,
    inner.size + suite.tasks.classes * (_width(suite) + 2),
    f'{_PROBE_STEPS} steps of gradient descent',
    logits,
    finish,
  )


def _descend(
  features: types.Array, labels: types.Array, zero_shot: types.Array
) -> scale.LinearProbe:
  """Minimises the cross-entropy by turns: weights and biases, then alpha."""
  start, rates = scale.linear_probe(features, labels, zero_shot)

  def loss(head: scale.LinearProbe) -> types.Array:
    logits = scale.probe_logits(head, features, zero_shot)
    log_p = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], 1))

  def step(head: scale.LinearProbe, _: None) -> tuple[scale.LinearProbe, None]:
    slope = jax.grad(loss)(head)
    head = head._replace(
      weight=head.weight - rates.weight * slope.weight,
      bias=head.bias - rates.weight * slope.bias,
    )
    slope = jax.grad(loss)(head)
    return head._replace(alpha=head.alpha - rates.alpha * slope.alpha), None

  return jax.lax.scan(step, start, length=_PROBE_STEPS)[0]


def _features(
  inner: few_label_training.Trained,
  encode: Any,
  bound: Any,
  params: types.Tree,
  x: types.Array,
) -> tuple[types.Array, types.Array]:
  """Returns features and logits of a parameterisation."""
  encoder, head = inner.build(bound, params)
  features = encode(encoder, x)
  return features, features @ head['kernel'] + head['bias'][None]


def _width(suite: suites.Suite) -> int:
  """Returns the number of features."""
  kernel = suites.shapes(suite)['heads']['kernel']
  return math.prod(kernel.shape[1:]) // suite.tasks.classes
