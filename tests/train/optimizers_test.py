"""Every optimizer of optax trains, or is refused before the first step."""

import functools
import inspect
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train import problem
from wsl import train

SGD = optax.sgd(0.05)
# Arguments of optax's functions that have no default value.
REQUIRED = {
  'learning_rate': 0.05,
  'optimizer': SGD,
  'adv_optimizer': optax.chain(optax.contrib.normalize(), optax.sgd(0.01)),
  'base_optimizer': SGD,
  'fast_optimizer': SGD,
  'inner': SGD,
  'inner_optimizer': SGD,
  'sync_period': 2,
  'slow_step_size': 0.5,
  'max_consecutive_errors': 3,
  'weight_decay': 0.01,
  'l2_norm_clip': 1.0,
  'noise_multiplier': 0.1,
  'b1': 0.9,
  'key': jax.random.key(0),
}
# Options without which a function of optax warns.
RANDOM = ('differentially_private_aggregate', 'noisy_sgd')
DEPRECATED = {'optimistic_adam', 'dpsgd'}
# They need a pair of parameters, or the gradient of every example.
REFUSED = {'lookahead', 'differentially_private_aggregate'}
WRAPPERS = (optax.lookahead, optax.apply_if_finite)


def public_optimizers():
  """Returns the optimizers of optax and of optax.contrib."""
  every = {**vars(optax), **vars(optax.contrib)}
  functions = {
    name: fn
    for name, fn in every.items()
    if inspect.isfunction(fn) or isinstance(fn, functools.partial)
    if not name.startswith(('_', 'scale_by_')) and name not in DEPRECATED
  }
  return [
    pytest.param(fn, id=name)
    for name, fn in sorted(functions.items())
    if fn in WRAPPERS
    or module_of(fn) == 'optax._src.alias'
    or (
      module_of(fn).startswith('optax.contrib.')
      and 'GradientTransformation'
      in str(inspect.signature(fn).return_annotation)
    )
  ]


def module_of(fn):
  return getattr(fn, 'func', fn).__module__


def build(fn, name):
  """Calls a function of optax with a value for each required argument."""
  given = {'key': REQUIRED['key']} if name in RANDOM else {}
  parameters = inspect.signature(fn).parameters.values()
  required = {
    p.name: REQUIRED[p.name]
    for p in parameters
    if p.default is p.empty and p.kind is not p.VAR_KEYWORD
  }
  return fn(**required | given)


def run(optimizer, steps=4, params=None, loss=problem.squares, size=6):
  data, _ = problem.data(dtype=jnp.float32)
  params = problem.zero(jnp.float32) if params is None else params
  state = train.start(params, optimizer=optimizer)
  return train.advance(
    loss,
    state,
    data,
    optimizer=optimizer,
    steps=steps,
    batch_size=size,
    key=jax.random.key(1),
  )


@pytest.mark.parametrize('fn', public_optimizers())
def test_every_optimizer_trains_or_is_refused(fn, request, caplog):
  caplog.set_level(logging.CRITICAL)
  name = request.node.callspec.id
  optimizer = build(fn, name)
  if name in REFUSED:
    with pytest.raises(ValueError, match=r'^advance: ') as error:
      run(optimizer)
    assert '\n' not in str(error.value)
    assert len(str(error.value)) <= 200
    return
  state, losses = run(optimizer)
  assert state.step == 4
  assert losses.dtype == jnp.float32
  assert np.isfinite(losses).all()


def by_hand(optimizer, steps, params):
  """Steps on all examples, where their order changes nothing."""
  data, _ = problem.data(dtype=jnp.float64)
  loss = lambda p: problem.squares(p, data, None)
  state = optimizer.init(params)
  losses = []
  for _ in range(steps):
    at = getattr(params, 'fast', params)
    value, grad = jax.value_and_grad(loss)(at)
    losses.append(value)
    with jax.numpy_dtype_promotion('standard'):
      updates, state = optax.with_extra_args_support(optimizer).update(
        grad, state, params, value=value, grad=grad, value_fn=loss
      )
    params = optax.apply_updates(params, updates)
  return params, state, jnp.stack(losses)


def on_all(optimizer, steps, params=None):
  data, _ = problem.data(dtype=jnp.float64)
  state = train.start(
    problem.zero() if params is None else params, optimizer=optimizer
  )
  return train.advance(
    problem.squares,
    state,
    data,
    optimizer=optimizer,
    steps=steps,
    batch_size=20,
    key=jax.random.key(1),
  )


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.lbfgs(),
    optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)),
    optax.polyak_sgd(0.3),
    optax.contrib.momo_adam(0.1),
    optax.chain(SGD, optax.contrib.reduce_on_plateau(patience=1, cooldown=1)),
  ],
  ids=['lbfgs', 'backtracking', 'polyak', 'momo_adam', 'plateau'],
)
def test_steps_equal_a_loop_by_hand(optimizer):
  state, losses = on_all(optimizer, 5)
  params, opt_state, values = by_hand(optimizer, 5, problem.zero())
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-12)
  close(losses, values)
  close(state.params['w'], params['w'])
  assert jax.tree.structure(state.opt_state) == jax.tree.structure(opt_state)


def test_lbfgs_reaches_the_optimum_of_a_quadratic():
  _, w = problem.data()
  state, losses = on_all(optax.lbfgs(), 8)
  np.testing.assert_allclose(state.params['w'], w, rtol=1e-6)
  assert losses[-1] < 1e-12


def test_line_searches_of_several_seeds_are_one_vmap():
  starts = {'w': jnp.arange(6.0).reshape(2, 3)}
  many, losses = jax.vmap(lambda p: on_all(optax.lbfgs(), 4, p))(starts)
  for i in range(2):
    alone, alone_losses = on_all(optax.lbfgs(), 4, {'w': starts['w'][i]})
    np.testing.assert_allclose(losses[i], alone_losses, rtol=1e-6, atol=1e-14)
    np.testing.assert_allclose(many.params['w'][i], alone.params['w'], 1e-6)


def test_a_plateau_reduces_the_learning_rate():
  plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, cooldown=0)
  state, losses = on_all(optax.chain(optax.sgd(0.0), plateau), 9)
  assert np.ptp(losses) < 1e-12
  assert state.opt_state[1].scale == 0.5**4


def test_lookahead_trains_a_fast_and_a_slow_copy():
  optimizer = optax.lookahead(SGD, sync_period=2, slow_step_size=0.5)
  pair = optax.LookaheadParams.init_synced(problem.zero())
  state, losses = on_all(optimizer, 5, pair)
  params, _, values = by_hand(optimizer, 5, pair)
  np.testing.assert_allclose(losses, values, rtol=1e-12)
  problem.close(state.params, params)
  assert not np.array_equal(state.params.fast['w'], state.params.slow['w'])
  with pytest.raises(ValueError, match='start from'):
    on_all(optimizer, 5)


def test_an_object_with_the_methods_of_an_optimizer_is_one():
  state, _ = on_all(optax.MultiSteps(SGD, 2), 4)
  assert state.opt_state.gradient_step == 2


def needs(update):
  return optax.GradientTransformationExtraArgs(optax.identity().init, update)


def changes(new):
  return optax.GradientTransformation(
    lambda params: jnp.zeros(2, jnp.int32),
    lambda grads, state, params: (grads, new(state)),
  )


@pytest.mark.parametrize(
  ('optimizer', 'message'),
  [
    (
      needs(lambda g, s, p, *, hessian, **_: (g, s)),
      "asks for 'hessian'; what",
    ),
    (needs(lambda g, s, p, **_: ({'w': float(g['w'][0])}, s)), 'Concret'),
    (changes(lambda s: (s, s)), 'changes the structure of the state'),
    (changes(lambda s: s[:1]), r'changes .* from int32\[2\] to int32\[1\]'),
    (changes(lambda s: s + 0.5), r'from int32\[2\] to float64\[2\]'),
    (optax.adam, 'start: optimizer is a function, expected an optax'),
  ],
)
def test_what_cannot_run_is_refused_before_the_first_step(optimizer, message):
  with pytest.raises(ValueError, match=message) as error:
    on_all(optimizer, 2)
  assert '\n' not in str(error.value)


def test_only_the_accepted_arguments_are_passed():
  """An update need not take all of them."""
  seen = []

  def update(grad, state, params, value):
    seen.append(value)
    return jax.tree.map(lambda g: -0.1 * g, grad), state

  on_all(needs(update), 2)
  assert len(seen) == 1
  assert seen[0].shape == ()


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
  'optimizer',
  [
    optax.adam(0.1),
    optax.lbfgs(),
    optax.polyak_sgd(0.3),
    optax.chain(SGD, optax.contrib.reduce_on_plateau(patience=1)),
  ],
  ids=['adam', 'lbfgs', 'polyak', 'plateau'],
)
def test_parameters_keep_their_dtype_under_the_defaults_of_jax(
  optimizer, dtype
):
  with (
    jax.enable_x64(False),
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
  ):
    params = problem.zero(dtype)
    state, losses = run(optimizer, steps=6, params=params, size=20)
    assert state.params['w'].dtype == dtype
    assert losses[-1] < losses[0]
