"""REPAIR from the moments of the merged models, against numpy."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, stats

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3)) + 0.5
SHARES = (0.5, 0.2, 0.3)


def draw(seed: int, bias: bool = True) -> dict[str, Any]:
  rng = np.random.default_rng(seed)
  found = {}
  for i, shape in enumerate([(3, 6), (6, 5), (5, 4)]):
    found[f'w{i}'] = rng.normal(size=shape)
    if bias:
      found[f'b{i}'] = rng.normal(size=shape[1:])
  return found


def net(p: Any, x: Any) -> Any:
  for i in range(3):
    x = jax.nn.relu(x) if i else x
    x = jnp.matmul(x, p[f'w{i}'])
    x = x + p[f'b{i}'][None] if f'b{i}' in p else x
  return x


def outputs(p: Any) -> list[np.ndarray]:
  """Returns the outputs of every layer before its activation function."""
  x, found = X, []
  for i in range(3):
    p = {name: np.asarray(leaf) for name, leaf in p.items()}
    x = (np.maximum(x, 0) if i else x) @ p[f'w{i}'] + p.get(f'b{i}', 0)
    found.append(x)
  return found


MODELS = [draw(seed) for seed in (1, 2, 3)]
GRAMS = stats.joint_gram(net, MODELS, [X[:120], X[120:]])


def expected(
  models: Any, shares: Any, epsilon: float, shift: bool = True
) -> dict[str, np.ndarray]:
  """The definition, with the outputs of all examples at hand."""
  found = {}
  for i, ys in enumerate(zip(*map(outputs, models))):
    average = sum(c * y for c, y in zip(shares, ys))
    deviation = sum(c * y.std(0) for c, y in zip(shares, ys))
    gain = np.sqrt((deviation**2 + epsilon) / (average.var(0) + epsilon))
    mean = average.mean(0)
    weight, bias = (
      sum(c * p.get(f'{kind}{i}', 0) for c, p in zip(shares, models))
      for kind in 'wb'
    )
    found[f'w{i}'] = gain * weight
    if f'b{i}' in models[0]:
      found[f'b{i}'] = gain * bias + (mean - gain * mean) * shift
  return found


@pytest.mark.parametrize('shift', [True, False])
@pytest.mark.parametrize('shares', [None, SHARES])
def test_three_models_against_all_examples(shares: Any, shift: bool) -> None:
  found = align.repair_in_closed_form(
    MODELS, grams=GRAMS, weights=shares, shift=shift, epsilon=1e-3
  )
  wanted = expected(MODELS, shares or [1 / 3] * 3, 1e-3, shift)
  for name, x in wanted.items():
    np.testing.assert_allclose(found[name], x, rtol=1e-9, atol=1e-12)


def test_the_first_layer_has_the_moments_of_repair() -> None:
  """Its inputs are those of every model, so that the formula is exact."""
  measure = lambda p: stats.moments(net, p, [X])
  merged = jax.tree.map(lambda *x: sum(x) / 3, *MODELS)
  wanted = align.repair(
    merged,
    measure=measure,
    endpoints=[*map(measure, MODELS)],
    passes=1,
    leaves='w0',
  )
  found = align.repair_in_closed_form(MODELS, grams=GRAMS, leaves='w0')
  for name in wanted:
    np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)
  assert not np.allclose(found['w0'], merged['w0'])


def test_deviations_that_averaging_halves_are_restored() -> None:
  """The negative control is the plain average."""
  merged = jax.tree.map(lambda *x: sum(x) / 3, *MODELS)
  fixed = align.repair_in_closed_form(MODELS, grams=GRAMS)
  target = np.mean([outputs(m)[2].std(0) for m in MODELS], 0)
  error = lambda p: np.abs(np.log(outputs(p)[2].std(0) / target)).mean()
  assert error(fixed) < 0.6 * error(merged)


def test_copies_are_a_fixed_point() -> None:
  copies = [MODELS[0]] * 2
  grams = stats.joint_gram(net, copies, [X])
  found = align.repair_in_closed_form(copies, grams=grams)
  for name, x in MODELS[0].items():
    np.testing.assert_allclose(found[name], x, rtol=1e-9)


def test_convolutions_and_stacked_layers() -> None:
  conv = nn.Conv(4, (3, 3), param_dtype=np.float64)
  x = RNG.normal(size=(6, 5, 5, 2))
  ends = [conv.init(jax.random.key(seed), x)['params'] for seed in (0, 1)]
  apply_fn = lambda p, x: conv.apply({'params': p}, x)
  grams = stats.joint_gram(apply_fn, ends, [x])
  fixed = align.repair_in_closed_form(ends, grams=grams, epsilon=0.0)
  # One layer: the prediction is exact.
  std = lambda p: np.std(apply_fn(p, x), (0, 1, 2))
  np.testing.assert_allclose(std(fixed), (std(ends[0]) + std(ends[1])) / 2)

  def scanned(p: Any, x: Any) -> Any:
    step = lambda h, w: (jnp.tanh(jnp.matmul(h, w)), None)
    return jax.lax.scan(step, x, p['w'])[0]

  layers = [{'w': RNG.normal(size=(2, 3, 3))} for _ in range(2)]
  grams = stats.joint_gram(scanned, layers, [X])
  fixed = align.repair_in_closed_form(
    layers, grams=grams, shift=False, epsilon=0.0
  )
  hidden = [X] * 2
  for i in range(2):
    ys = [h @ p['w'][i] for h, p in zip(hidden, layers)]
    gain = sum(y.std(0) for y in ys) / sum(ys).std(0)
    weight = sum(p['w'][i] for p in layers) / 2
    np.testing.assert_allclose(fixed['w'][i], gain * weight, rtol=1e-9)
    hidden = [np.tanh(y) for y in ys]


def test_integers_and_dtypes_are_those_of_the_first_model() -> None:
  narrow = [
    jax.tree.map(lambda x: jnp.asarray(x, np.float32), m) | {'n': np.asarray(n)}
    for n, m in enumerate(MODELS)
  ]
  x = X.astype(np.float32)
  grams = stats.joint_gram(net, narrow, [x])
  found = align.repair_in_closed_form(narrow, grams=grams)
  assert found['n'] == 0
  assert found['w1'].dtype == np.float32
  wanted = expected(MODELS, [1 / 3] * 3, 1e-5)
  np.testing.assert_allclose(found['w1'], wanted['w1'], rtol=1e-3)


BARE = [draw(seed, bias=False) for seed in (1, 2)]


@pytest.mark.parametrize(
  ('models', 'changes', 'message'),
  [
    (MODELS, {'weights': (0.5, 0.5)}, r'weights \[0.5, 0.5\] for 3 endpoints'),
    (MODELS, {'weights': (0.5, 0.5, 0.5)}, 'of sum 1'),
    (MODELS, {'epsilon': -1.0}, 'epsilon=-1.0'),
    (MODELS[:2], {}, r"'w0' has shape \(1, 9, 9\), expected \(1, 6, 6\)"),
    (MODELS, {'grams': stats.gram(net, MODELS[0], [X])}, 'joint_gram'),
    (
      BARE,
      {'grams': stats.joint_gram(net, BARE, [X])},
      "the map 'w0' has no bias to shift",
    ),
  ],
)
def test_bad_arguments_are_named(
  models: Any, changes: dict[str, Any], message: str
) -> None:
  with pytest.raises(
    ValueError, match=f'^repair_in_closed_form: .*{message}'
  ) as error:
    align.repair_in_closed_form(models, **({'grams': GRAMS} | changes))
  assert '\n' not in str(error.value)
