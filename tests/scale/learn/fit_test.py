"""fit: convergence, streaming, and the result held by an early stop."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.scale import problem
from wsl import scale, tree

apply_fn = problem.apply_fn
run = problem.run
stored = problem.stored
ADAM = problem.ADAM
BANK = problem.BANK
BASE = problem.BASE
KEY = problem.KEY
LAYERS = problem.LAYERS
LOSS = problem.LOSS
MODELS = problem.MODELS
X = problem.X
Y = problem.Y


def test_the_loss_falls_and_nothing_else_moves() -> None:
  found = run(batches=[(X, Y)], steps=60)
  assert found.losses.shape == (60,)
  assert found.losses[-1] < 0.6 * found.losses[0]
  params = scale.compose(BASE, BANK, found.coefs)
  last = float(LOSS(params, (X, Y), KEY))
  assert last < found.losses[-1]
  assert params['step'] == 7


def test_steps_are_the_optimizers() -> None:
  coefs = scale.init(BANK, by='leaf')
  state = ADAM.init(coefs)
  for s in range(3):
    batch = [(X, Y), (X[:4], Y[:4])][s % 2]
    gradient = jax.grad(
      lambda c, b=batch: LOSS(scale.compose(BASE, BANK, c), b, KEY)
    )(coefs)
    with jax.numpy_dtype_promotion('standard'):
      updates, state = ADAM.update(gradient, state)
    coefs = optax.apply_updates(coefs, updates)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    run(steps=3).coefs,
    coefs,
  )


def test_a_fit_resumes_from_its_state() -> None:
  first = run(steps=4)
  rest = run(steps=6, coefs=first.coefs, opt_state=first.opt_state)
  whole = run(steps=10)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    rest.coefs,
    whole.coefs,
  )


@pytest.mark.parametrize('stream', [False, True])
def test_transforms_and_projections(stream: bool) -> None:
  found = run(transform=scale.softmax, stream=stream)
  weights = scale.softmax(found.coefs)
  np.testing.assert_allclose(weights['out'].sum(), 1.0)
  best = run(project=scale.box, optimizer=optax.sgd(10.0), stream=stream).coefs
  flat = jnp.concatenate(jax.tree.leaves(best))
  assert flat.min() == 0
  assert flat.max() == 1
  layers = scale.init(BANK, by='layer', depth=LAYERS)
  line = functools.partial(scale.line, like=layers)
  ends = {'start': jnp.asarray(0.3), 'end': jnp.asarray([0.0, 1.0, 0.0])}
  found = run(coefs=ends, transform=line, stream=stream)
  assert {k: x.shape for k, x in found.coefs.items()} == {
    'start': (),
    'end': (3,),
  }
  assert found.losses[-1] < found.losses[0]


def test_the_line_is_by_depth() -> None:
  layers = scale.init(BANK, by='layer', depth=LAYERS)
  ends = {'start': jnp.asarray(0.2), 'end': jnp.asarray(0.9)}
  found = scale.combine(BANK, scale.line(ends, like=layers))
  total = scale.combine(BANK, 1.0)
  wanted = scale.by_depth(total, depth=LAYERS, start=0.2, end=0.9)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-14), found, wanted
  )
  with pytest.raises(ValueError, match="expected 'start' and 'end'"):
    scale.line({'start': 0.0}, like=layers)  # type: ignore[dict-item]
  with pytest.raises(ValueError, match='at least two layers'):
    scale.line(ends, like=scale.init(BANK, by='leaf'))
  with pytest.raises(ValueError, match="block 'all' has one number"):
    scale.softmax(scale.init(BANK, by='all'))


def test_a_projected_coefficient_recovers_and_a_clamped_one_does_not() -> None:
  base = {'w': jnp.zeros(())}
  bank = scale.bank(base, [{'w': jnp.ones(())}])
  coefs = jax.tree.map(lambda x: x + 1.5, scale.init(bank, by='task'))
  settings: Any = {
    'objective': lambda p, batch, key: (p['w'] - 0.5) ** 2,
    'base': base,
    'bank': bank,
    'coefs': coefs,
    'batches': [0.0],
    'optimizer': optax.sgd(0.2),
  }
  projected = run(**settings, project=scale.box).coefs['task']
  np.testing.assert_allclose(projected, 0.5, atol=1e-3)
  clamped = run(**settings, transform=scale.box).coefs['task']
  assert clamped.tolist() == [1.5]


def test_an_iterator_is_consumed_once() -> None:
  seen: list[Any] = []
  run(
    batches=itertools.repeat((X, Y)),
    steps=3,
    progress=lambda *a: seen.append(a),
  )
  assert [s for s, _, _ in seen] == [0, 1, 2]
  assert seen[0][2]['out'].tolist() == [0.0] * 3
  with pytest.raises(
    scale.StoppedError, match='ran out after 2 of 5 steps'
  ) as e:
    run(batches=iter([(X, Y)] * 2), steps=5)
  wanted = run(batches=[(X, Y)], steps=2)
  jax.tree.map(
    np.testing.assert_array_equal, e.value.result.coefs, wanted.coefs
  )
  assert len(e.value.result.losses) == 2
  with pytest.raises(scale.StoppedError, match='ran out after 0 of 5 steps'):
    run(batches=[], steps=5)


@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize('bad', [0, 1, 3])
def test_a_loss_that_is_not_finite_stops_it(bad: int, stream: bool) -> None:
  nan = jnp.full_like(X, jnp.nan)
  batches = [(X, Y)] * bad + [(nan, Y)]
  with pytest.raises(
    scale.StoppedError, match=f'the loss of step {bad} is nan'
  ) as error:
    run(batches=batches, steps=10, stream=stream)
  result = error.value.result
  assert len(result.losses) == bad + 1
  assert np.isnan(result.losses[-1])
  wanted = run(batches=[(X, Y)], steps=max(bad - 1, 0), stream=stream)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
    result.coefs,
    wanted.coefs,
  )
  # It can go on from there.
  run(coefs=result.coefs, opt_state=result.opt_state, steps=1)


def test_an_update_that_is_not_finite_stops_it() -> None:
  slope = lambda p, batch, key: jnp.sqrt(jnp.sum((p['out'] - BASE['out']) ** 2))
  with pytest.raises(
    scale.StoppedError, match='the update of step 0 is not finite'
  ) as error:
    run(objective=slope)
  assert error.value.result.coefs['out'].tolist() == [0.0] * 3


def test_the_step_compiles_once_and_holds_no_constants() -> None:
  from wsl.scale._learn import learning_step

  before = learning_step.step._cache_size()
  run(steps=3, batches=[(X, Y)], optimizer=(fresh := optax.sgd(0.1)))
  run(steps=5, batches=[(X + 1, Y)], optimizer=fresh)
  assert learning_step.step._cache_size() == before + 1
  state = learning_step.State(scale.init(BANK, by='leaf'), ADAM.init({}))
  state = state._replace(opt_state=ADAM.init(state.coefs))
  traced = learning_step.step.trace(
    jax.tree_util.Partial(LOSS),
    BASE,
    BANK,
    None,
    state,
    (X, Y),
    KEY,
    optimizer=ADAM,
    transform=scale.identity,
    project=scale.identity,
  )
  assert sum(np.size(c) for c in traced.jaxpr.consts) == 0


def test_the_linearised_model_can_be_fitted() -> None:
  linear = scale.linear_model(apply_fn, BASE)
  found = run(objective=scale.supervised(linear), batches=[(X, Y)], steps=30)
  assert found.losses[-1] < 0.8 * found.losses[0]
  tangent = scale.linearise(apply_fn, BASE)
  delta = scale.combine(BANK, found.coefs)
  np.testing.assert_allclose(
    tangent(delta, X), linear(scale.compose(BASE, BANK, found.coefs), X)
  )
  many = tree.stack([delta, scale.combine(BANK, 0.0)])
  both = jax.vmap(tangent, (0, None))(many, X)
  np.testing.assert_allclose(both[0], tangent(delta, X), atol=1e-12)
  np.testing.assert_allclose(both[1], apply_fn(BASE, X), atol=1e-12)


def test_bad_arguments_are_refused_before_the_first_step() -> None:
  with pytest.raises(ValueError, match='fit: a bank whose base differs'):
    run(base=BASE | {'out': BASE['out'] + 1})
  with pytest.raises(ValueError, match=r'fit\(steps=-1\)'):
    run(steps=-1)
  lazy = scale.bank(
    BASE, [jax.tree.map(lambda x: stored(x, []), m) for m in MODELS]
  )
  with pytest.raises(ValueError, match=r'fit\(stream=False\)'):
    run(bank=lazy, stream=False)
  assert run(steps=0).losses.shape == (0,)


def test_the_old_spelling_of_the_optimizer_still_works() -> None:
  arguments = LOSS, BASE, BANK, scale.init(BANK, by='task'), [(X, Y)]
  options = {'steps': 1, 'key': KEY}
  with pytest.warns(DeprecationWarning, match=r'scale\.fit\(optimiser=\)'):
    old = scale.fit(*arguments, optimiser=ADAM, **options)
  new = scale.fit(*arguments, optimizer=ADAM, **options)
  assert old.losses == new.losses


def with_moments(
  params: Any, aux: Any, batch: Any, key: Any
) -> tuple[Any, Any]:
  """The loss, and a moving average of the outputs, as BatchNorm keeps it."""
  moments = apply_fn(params, batch[0]).mean(0)
  new = {'mean': 0.5 * aux['mean'] + 0.5 * moments, 'steps': aux['steps'] + 1}
  return LOSS(params, batch, key), new


@pytest.mark.parametrize('stream', [False, True])
def test_auxiliary_state_is_carried(stream: bool) -> None:
  aux = {'mean': jnp.zeros(3), 'steps': jnp.zeros((), jnp.int32)}
  found = run(objective=with_moments, aux=aux, steps=4, stream=stream)
  plain = run(steps=4, stream=stream)
  np.testing.assert_allclose(found.losses, plain.losses, rtol=1e-12)
  assert plain.aux is None
  assert found.aux['steps'] == 4
  # The moments by hand, at the coefficients before each step.
  mean = np.zeros(3)
  for s in range(4):
    coefs = run(steps=s, stream=stream).coefs
    batch = [(X, Y), (X[:4], Y[:4])][s % 2]
    params = scale.compose(BASE, BANK, coefs)
    mean = 0.5 * mean + 0.5 * np.asarray(apply_fn(params, batch[0])).mean(0)
  np.testing.assert_allclose(found.aux['mean'], mean, rtol=1e-10)
  first = run(objective=with_moments, aux=aux, steps=2, stream=stream)
  rest = {'coefs': first.coefs, 'opt_state': first.opt_state, 'aux': first.aux}
  again = run(objective=with_moments, steps=2, stream=stream, **rest)
  assert again.aux['steps'] == 4


def test_the_last_good_auxiliary_state_is_kept() -> None:
  aux = {'mean': jnp.zeros(3), 'steps': jnp.zeros((), jnp.int32)}
  batches = iter([(X, Y)] * 3)
  with pytest.raises(scale.StoppedError) as error:
    run(objective=with_moments, aux=aux, batches=batches)
  assert error.value.result.aux['steps'] == 3


@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize(
  ('objective', 'aux', 'message'),
  [
    (lambda p, b, k: (LOSS(p, b, k), 1), None, r'no aux.* fit\(aux=\.\.\.\)'),
    (lambda p, a, b, k: LOSS(p, b, k), {'n': 0}, r'expected \(loss, aux\)'),
    (
      lambda p, a, b, k: (LOSS(p, b, k), {}),
      {'n': 0},
      "aux 'n' is missing in the result of the loss",
    ),
  ],
)
def test_bad_auxiliary_state_is_named(
  objective: Any, aux: Any, message: str, stream: bool
) -> None:
  with pytest.raises(ValueError, match=f'^fit: .*{message}'):
    run(objective=objective, aux=aux, stream=stream)
