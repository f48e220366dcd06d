"""Sinkhorn re-basin: projection, derivative and planted permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.align import planted
from wsl import align
from wsl.align import _soft

F = align.Factor

# A dense layer of 8 units, then 3 heads of 4 units each.
SYMMETRY = align.Symmetry(
  factors=(
    F('a:0', 5, 'an input'),
    F('a:1', 8),
    F('b:1.0', 3),
    F('b:1.1', 4, outer=('b:1.0',)),
    F('c:1', 2, 'an output'),
  ),
  axes=(
    ('a', ((('a:0',),), (('a:1',),))),
    ('b', ((('a:1',),), (('b:1.0', 'b:1.1'),))),
    ('c', ((('b:1.0', 'b:1.1'),), (('c:1',),))),
    ('n', ((('a:0',),),)),
  ),
)
SHAPES = {'a': (5, 8), 'b': (8, 12), 'c': (12, 2)}


def _params(seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  draw = {n: jnp.asarray(rng.normal(size=s), dtype) for n, s in SHAPES.items()}
  return draw | {'n': jnp.arange(5)}


def _logits(seed, shape=(6, 6), dtype=np.float64):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _project_(logits, temperature=1.0, iterations=200):
  return align.sinkhorn_project(
    logits, temperature=temperature, iterations=iterations
  )


def test_the_projection_is_doubly_stochastic_and_a_scaling():
  z = _logits(0, (2, 6, 6))
  p = _project_(z, 0.7)
  np.testing.assert_allclose(p.sum(-1), np.ones((2, 6)), atol=1e-12)
  np.testing.assert_allclose(p.sum(-2), np.ones((2, 6)), atol=1e-12)
  residue = jnp.log(p) - z / 0.7
  residue -= residue[..., :1, :] + residue[..., :, :1] - residue[..., :1, :1]
  np.testing.assert_allclose(residue, np.zeros((2, 6, 6)), atol=1e-10)


def test_two_by_two_in_closed_form():
  z = jnp.asarray([[1.0, 0.2], [-0.3, 0.5]])
  ratio = np.exp((1.0 + 0.5 - 0.2 + 0.3) / (2 * 0.5))
  p = ratio / (1 + ratio)
  wanted = [[p, 1 - p], [1 - p, p]]
  np.testing.assert_allclose(_project_(z, 0.5), wanted, rtol=1e-12)


@pytest.mark.parametrize('temperature', [1.0, 0.4])
def test_the_implicit_derivative_equals_the_unrolled_one(temperature):
  z, weights = _logits(1, (2, 6, 6)), _logits(2, (2, 6, 6))

  def both(x, _):
    x = x - jax.scipy.special.logsumexp(x, axis=-1, keepdims=True)
    return x - jax.scipy.special.logsumexp(x, axis=-2, keepdims=True), None

  def unrolled(z):
    return jnp.exp(jax.lax.scan(both, z / temperature, None, 300)[0])

  loss = lambda fn: lambda z: jnp.sum(jnp.sin(3 * fn(z)) * weights)
  project = lambda z: _project_(z, temperature, 300)
  found = jax.jit(jax.grad(loss(project)))(z)
  wanted = jax.jit(jax.grad(loss(unrolled)))(z)
  np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-11)
  assert np.abs(wanted).max() > 0.1


def test_the_derivative_is_tangent_to_the_polytope():
  # The projection is invariant to constants added to a row or column of logits.
  z, weights = _logits(3), _logits(4)
  value = lambda z: jnp.sum(_project_(z, 0.5) * weights)
  gradient = jax.jit(jax.grad(value))(z)
  np.testing.assert_allclose(gradient.sum(0), np.zeros(6), atol=1e-12)
  np.testing.assert_allclose(gradient.sum(1), np.zeros(6), atol=1e-12)


def test_the_derivative_with_respect_to_temperature():
  z, weights = _logits(5), _logits(6)
  value = jax.jit(lambda t: jnp.sum(_project_(z, t) * weights))
  wanted = (value(0.8 + 1e-5) - value(0.8 - 1e-5)) / 2e-5
  np.testing.assert_allclose(jax.grad(value)(0.8), wanted, rtol=1e-7)


@pytest.mark.parametrize('temperature', [1.0, 0.1, 1e-3])
def test_the_derivative_is_finite_near_permutations(temperature):
  z = _logits(7, (100, 100), np.float32)
  weights = _logits(8, (100, 100), np.float32)
  value = lambda z: jnp.sum(_project_(z, temperature, 20) * weights)
  assert np.all(np.isfinite(jax.jit(jax.grad(value))(z)))


@pytest.mark.parametrize('loss', ['l2', 'cosine'])
@pytest.mark.parametrize('seed', [0, 1])
def test_planted_recovery(loss, seed):
  params = _params(seed)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=seed)
  found = align.sinkhorn(
    params, moving, symmetry=SYMMETRY, key=jax.random.key(5), loss=loss
  )
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_user_defined_loss_at_the_midpoint():
  params = _params(2)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=2)
  inputs = jax.random.normal(jax.random.key(0), (4, 16, 5), np.float32)

  def run(p, x):
    return jnp.tanh(jnp.tanh(x @ p['a']) @ p['b']) @ p['c']

  def loss(moved, key):
    x = inputs[jax.random.randint(key, (), 0, 4)]
    middle = {n: (params[n] + moved[n]) / 2 for n in SHAPES}
    return jnp.mean(jnp.square(run(middle, x) - run(params, x)))

  found = align.sinkhorn(
    params, moving, symmetry=SYMMETRY, key=jax.random.key(1), loss=loss
  )
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_the_distance_of_unrelated_models_decreases_with_steps():
  fixed, moving = _params(3), _params(4)
  match = lambda **x: align.sinkhorn(
    fixed, moving, symmetry=SYMMETRY, key=jax.random.key(0), **x
  )

  def distance(g):
    moved = align.permute(moving, g, symmetry=SYMMETRY)
    return sum(float(jnp.sum((fixed[n] - moved[n]) ** 2)) for n in SHAPES)

  random = [
    distance(align.random(SYMMETRY, jax.random.key(i), gauges=('permutation',)))
    for i in range(20)
  ]
  assert distance(match()) < min(random)
  still = match(steps=1, optimizer=optax.sgd(0.0))
  assert distance(still) > distance(match())


def test_progress_reports_the_loss_of_every_step():
  fixed, moving = _params(3), _params(4)
  steps = []
  align.sinkhorn(
    fixed,
    moving,
    symmetry=SYMMETRY,
    key=jax.random.key(0),
    steps=40,
    noise=0.0,
    progress=lambda *x: steps.append(x),
  )
  assert [i for i, _ in steps] == [*range(40)]
  # Without noise the first matrices are uniform: every group is averaged.
  uniform = {
    g.name: jnp.full(_soft.shape(g, SYMMETRY), 1 / g.size, np.float32)
    for g in SYMMETRY.groups
  }
  moved = _soft.apply(moving, uniform, symmetry=SYMMETRY)
  first = sum(float(jnp.sum((fixed[n] - moved[n]) ** 2)) for n in SHAPES)
  np.testing.assert_allclose(steps[0][1], first, rtol=1e-5)
  values = [value for _, value in steps]
  assert values[-1] < 0.9 * values[0]


def test_an_optimizer_gets_the_value_and_the_loss():
  params = _params(0)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=0)
  found = align.sinkhorn(
    params,
    moving,
    symmetry=SYMMETRY,
    key=jax.random.key(5),
    steps=30,
    optimizer=optax.lbfgs(),
  )
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'loss': 'l3'}, "loss 'l3' is unknown, expected one of"),
    ({'steps': 0}, 'steps is 0'),
    ({'temperature': 0.0}, 'temperature is 0.0, expected > 0'),
    ({'leaves': 'zz'}, "no leaf matches 'zz'"),
  ],
)
def test_arguments_are_checked(change, message):
  with pytest.raises(ValueError, match=message):
    align.sinkhorn(
      _params(),
      _params(),
      symmetry=SYMMETRY,
      key=jax.random.key(0),
      **change,
    )


def test_models_are_checked():
  match = lambda a, b: align.sinkhorn(
    a, b, symmetry=SYMMETRY, key=jax.random.key(0)
  )
  with pytest.raises(ValueError, match="moving: leaf 'a' has shape"):
    match(_params(), _params() | {'a': jnp.ones((5, 9), np.float32)})
  with pytest.raises(ValueError, match='NaN or inf'):
    match(_params(), _params() | {'a': jnp.full((5, 8), jnp.nan, np.float32)})
