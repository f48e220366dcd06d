"""RegMean++ against its definition in numpy, on a small network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge, tree

NEAR = 1e-9 if np.float64 == battery.FLOAT else 1e-3
T = 3
RNG = np.random.default_rng(3)


def draw(*shape: int) -> Any:
  return RNG.normal(size=shape).astype(battery.FLOAT)


BASE = {
  'stem': draw(3, 4),
  'one': {'kernel': draw(4, 4), 'bias': draw(4)},
  'two': {'kernel': draw(4, 2)},
  'step': np.asarray(5),
}
DELTAS = tree.map_named(
  lambda name, x: None if name == 'step' else 0.5 * draw(T, *x.shape), BASE
)
DATA = [[draw(6, 3), draw(6, 3)] for _ in range(T)]


def net(params: Any, x: Any) -> Any:
  h = jnp.tanh(x @ params['stem'])
  one = params['one']
  h = jnp.tanh(h @ one['kernel'] + one['bias'][None])
  return h @ params['two']['kernel']


def solve(deltas: Any, inputs: list[Any], shrink: float) -> Any:
  grams = [x.T @ x / len(x) for x in inputs]
  grams = [shrink * g + (1 - shrink) * np.diag(np.diag(g)) for g in grams]
  right = sum(g @ x for g, x in zip(grams, deltas))
  return np.linalg.solve(sum(grams), right)


def oracle(shrink: float) -> dict[str, Any]:
  """RegMean++ with the blocks 'one' and 'two'; the stem is averaged."""
  mean = lambda x: np.asarray(x).mean(0)
  data = [np.concatenate(part) for part in DATA]
  stem = mean(DELTAS['stem'])
  h = [np.tanh(x @ (BASE['stem'] + stem)) for x in data]
  one = solve(DELTAS['one']['kernel'], h, shrink)
  bias = mean(DELTAS['one']['bias'])
  h = [
    np.tanh(x @ (BASE['one']['kernel'] + one) + BASE['one']['bias'] + bias)
    for x in h
  ]
  two = solve(DELTAS['two']['kernel'], h, shrink)
  return {'stem': stem, 'one': {'kernel': one, 'bias': bias}, 'two': two}


def call(**options: Any) -> Any:
  given = {
    'base': BASE,
    'apply_fn': net,
    'batches': DATA,
    'blocks': ['one/', 'two/'],
    'shrink': 0.9,
  }
  return merge.regmean_plus(DELTAS, **given | options)


def test_regmean_plus_is_the_definition() -> None:
  wanted = oracle(0.9)
  found = jax.jit(lambda x: call(batches=x))(DATA)
  assert found['step'] is None
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=NEAR, atol=NEAR)
  close(found['stem'], wanted['stem'])
  close(found['one']['bias'], wanted['one']['bias'])
  close(found['one']['kernel'], wanted['one']['kernel'])
  close(found['two']['kernel'], wanted['two'])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      {'batches': DATA[:2]},
      'regmean_plus: batches has 2 entries, expected 3: a list of batches for '
      'each task',
    ),
    (
      {'blocks': ['one', 'kernel']},
      "regmean_plus: leaf 'one/kernel' is in the blocks [0, 1]: it has to be "
      'in one at most',
    ),
    ({'blocks': ['three']}, "regmean_plus: blocks: no leaf matches 'three'"),
    ({'shrink': 2.0}, 'regmean_plus(shrink=2.0): the factor of off-diagonal'),
  ],
)
def test_bad_input_is_named(options: Any, message: str) -> None:
  with pytest.raises(ValueError) as error:
    call(**options)
  assert str(error.value).startswith(message)
