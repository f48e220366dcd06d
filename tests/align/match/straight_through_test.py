"""Straight-through matching: gradient, selection, planted permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.align import planted
from wsl import align
from wsl.align._learned import straight_through

F = align.Factor
SYMMETRY = align.Symmetry(
  factors=(F('a:0', 4, 'an input'), F('a:1', 6), F('b:1', 2, 'an output')),
  axes=(
    ('a', ((('a:0',),), (('a:1',),))),
    ('b', ((('a:1',),), (('b:1',),))),
    ('n', ()),
  ),
)


def _params(seed):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), np.float32)
  return {'a': draw(4, 6), 'b': draw(6, 2), 'n': jnp.asarray(seed)}


def _run(params, x):
  return jnp.maximum(x @ params['a'], 0) @ params['b']


def _loss_fn(params, batch):
  return jnp.mean(jnp.square(_run(params, batch[0]) - batch[1]))


def _batches(teacher, count, seed=0, size=64):
  rng = np.random.default_rng(seed)
  xs = jnp.asarray(rng.normal(size=(count, size, 4)), np.float32)
  return [(x, _run(teacher, x)) for x in xs]


def _find(fixed, moving, batches, **change):
  arguments = {
    'symmetry': SYMMETRY,
    'key': jax.random.key(0),
    'loss_fn': _loss_fn,
    'batches': batches,
  }
  return align.straight_through(fixed, moving, **arguments | change)


def test_gradient_against_autodiff_with_stop_gradient():
  target, fixed, permuted = _params(0), _params(1), _params(2)
  batch = _batches(_params(3), 1)[0]

  def estimator(target):
    stop = jax.lax.stop_gradient(target)
    forward = {n: permuted[n] + (target[n] - stop[n]) for n in 'ab'}
    midpoint = {n: (forward[n] + fixed[n]) / 2 for n in 'ab'}
    return _loss_fn(midpoint, batch)

  loss, gradient = jax.value_and_grad(estimator)({n: target[n] for n in 'ab'})
  optimizer = optax.sgd(0.1)
  midpoint = straight_through._midpoint(fixed, permuted)
  found, after, _ = straight_through._train_step(
    target,
    optimizer.init(gradient),
    midpoint,
    batch,
    loss_fn=_loss_fn,
    optimizer=optimizer,
  )
  np.testing.assert_allclose(found, loss, rtol=1e-6)
  for n in 'ab':
    wanted = target[n] - np.float32(0.1) * gradient[n]
    np.testing.assert_allclose(after[n], wanted, rtol=1e-5, atol=1e-6)
  assert after['n'] == target['n']
  assert midpoint['n'] == fixed['n']


@pytest.mark.parametrize('held_out', [0, 2])
def test_planted_recovery(held_out):
  params = _params(0)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=1)
  batches = _batches(params, 3)
  found = _find(params, moving, batches, held_out=batches[:held_out])
  np.testing.assert_array_equal(found['a:1'], wanted['a:1'])


def test_training_improves_on_weight_matching():
  # Units of the moving model are rescaled by 1/10 to 10: the function is the
  # same, but weight matching pairs the wrong units.
  params = _params(5)
  scales = jnp.asarray([0.1, 10.0, 0.2, 5.0, 0.1, 10.0], np.float32)
  scaled = params | {
    'a': params['a'] * scales[None],
    'b': params['b'] / scales[:, None],
  }
  moving, _ = planted.permuted(scaled, SYMMETRY, seed=3)
  held_out = _batches(params, 2, seed=1)

  def loss(permutation):
    permuted = align.permute(moving, permutation, symmetry=SYMMETRY)
    midpoint = straight_through._midpoint(params, permuted)
    return np.mean([float(_loss_fn(midpoint, x)) for x in held_out])

  first = align.weight_matching(
    params, moving, symmetry=SYMMETRY, key=jax.random.key(0)
  )
  found = _find(
    params,
    moving,
    _batches(params, 60),
    held_out=held_out,
    optimizer=optax.adam(0.1),
  )
  assert loss(found) < 0.8 * loss(first)
  untrained = _find(
    params, moving, _batches(params, 5), optimizer=optax.sgd(0.0)
  )
  np.testing.assert_allclose(loss(untrained), loss(first), rtol=1e-6)


@pytest.mark.parametrize('initial', [None, align.identity(SYMMETRY)])
def test_the_first_matching_starts_as_weight_matching_does(initial):
  fixed, moving = _params(10), _params(11)
  found = _find(fixed, moving, _batches(fixed, 1), initial=initial)
  wanted = align.weight_matching(
    fixed,
    moving,
    symmetry=SYMMETRY,
    key=jax.random.fold_in(jax.random.key(0), 0),
    initial=initial,
  )
  np.testing.assert_array_equal(found['a:1'], wanted['a:1'])


def test_progress_reports_the_loss_of_every_step():
  fixed, moving = _params(6), _params(7)
  batches = _batches(fixed, 12)
  steps = []
  found = _find(
    fixed,
    moving,
    batches,
    optimizer=optax.sgd(0.05),
    progress=lambda *x: steps.append(x),
  )
  assert [i for i, _, _ in steps] == [*range(12)]
  for i, loss, permutation in steps:
    permuted = align.permute(moving, permutation, symmetry=SYMMETRY)
    midpoint = straight_through._midpoint(fixed, permuted)
    np.testing.assert_allclose(loss, _loss_fn(midpoint, batches[i]), rtol=1e-6)
  best = min(steps, key=lambda x: x[1])
  np.testing.assert_array_equal(found['a:1'], best[2]['a:1'])


@pytest.mark.parametrize(
  'optimizer', [optax.polyak_sgd(0.1), optax.lbfgs()], ids=['polyak', 'lbfgs']
)
def test_optimizers_get_the_value_and_the_loss(optimizer):
  params = _params(0)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=1)
  batches = [(x, y + 0.1) for x, y in _batches(params, 3)]
  found = _find(params, moving, batches, optimizer=optimizer)
  np.testing.assert_array_equal(found['a:1'], wanted['a:1'])
  with pytest.raises(ValueError, match=r'^straight_through: .*lookahead'):
    _find(params, moving, batches, optimizer=optax.lookahead(optimizer, 2, 0.5))


def test_held_out_batches_select_the_permutation():
  # The targets are noise in training batches, the function in held-out ones.
  fixed, moving = _params(6), _params(7)
  noise = [(x, 100 * jnp.sin(50 * y)) for x, y in _batches(fixed, 20)]
  held_out = _batches(fixed, 1, seed=9)
  find = lambda **x: _find(fixed, moving, noise, optimizer=optax.sgd(0.05), **x)

  def loss(permutation):
    permuted = align.permute(moving, permutation, symmetry=SYMMETRY)
    midpoint = straight_through._midpoint(fixed, permuted)
    return float(_loss_fn(midpoint, held_out[0]))

  assert loss(find(held_out=held_out)) < loss(find())


def test_arguments_are_checked():
  params = _params(0)
  batches = _batches(params, 2)
  with pytest.raises(ValueError, match='straight_through: no batches given'):
    _find(params, params, [])
  with pytest.raises(ValueError, match="moving: leaf 'a' has shape"):
    _find(params, params | {'a': jnp.ones((4, 7), np.float32)}, batches)
  with pytest.raises(ValueError, match='NaN or inf'):
    _find(
      params | {'a': jnp.full((4, 6), jnp.nan, np.float32)}, params, batches
    )
  broken = lambda params, batch: jnp.log(-jnp.sum(params['a'] ** 2))
  with pytest.raises(ValueError, match='the loss of step 0 is nan'):
    _find(params, params, batches, loss_fn=broken)
