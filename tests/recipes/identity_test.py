"""A merge of a model with copies of itself is the model, bit for bit."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes import cases
from wsl import checkpoint, recipes

SHAPE = (5, 9)
RANDOM = ('dare_linear', 'dare_ties', 'della', 'della_linear')


def _one(method: str, **shared: Any) -> dict[str, Any]:
  return {
    'merge_method': method,
    'base_model': 'base',
    'models': [{'model': 'one'}],
    'parameters': shared,
  }


RECIPES: dict[str, Any] = {
  **{k: v for k, v in cases.CASES.items() if 'slices' not in v},
  **{k: cases._based(k, weight=(0.4, 0.7), density=(0.5, 0.3)) for k in RANDOM},
  'arcee_fusion': _one('arcee_fusion'),
  'linear_halves': {
    'merge_method': 'linear',
    'models': cases._models(weight=(1, 1)),
  },
  'passthrough': {'merge_method': 'passthrough', 'models': [{'model': 'one'}]},
}
# Recipes with other weights or thresholds of the same programs.
ALIKE = ('linear_base', 'task_arithmetic_lambda', 'ties_signed', 'ties_sum')
ALIKE += ('ties_gradient', 'breadcrumbs_ties', 'ties_rescale', 'della_linear')
ALIKE += ('nuslerp', 'dare_linear')
# Not x, but c x, by its definition: the weights 0.3 - 0.9 are not normalised.
SCALED = {'linear_sum': -0.6}
# The sum of w_t x rounds in float32, where x has all of its digits: off by one
# unit in the last place. In bfloat16 and float16 the result is rounded to x.
ROUNDED = ('linear', 'linear_base', 'slerp', 'nuslerp', 'karcher')
# Methods on task vectors add zeros to the base, in any dtype by one kernel: a
# few of them are repeated in narrow dtypes.
NARROW = ('linear', 'slerp', 'ties', 'nuslerp_based', 'arcee_fusion')
ROWS = [(name, 'float32') for name in RECIPES if name not in ALIKE]
ROWS += [(name, 'bfloat16') for name in NARROW] + [('linear', 'float16')]


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Writes three copies of one model in each dtype."""
  path = tmp_path_factory.mktemp('copies')
  x = np.random.default_rng(0).standard_normal(SHAPE)
  x *= np.logspace(-3, 3, SHAPE[-1])
  x[0, 0], x[1, 1] = 0.0, -0.0
  for dtype in ('float32', 'bfloat16', 'float16'):
    params = {'w.weight': np.float32(x).astype(jnp.dtype(dtype))}
    for name in cases.THREE:
      checkpoint.save(path / dtype / name, params, metadata={'format': 'pt'})
  return path


@pytest.mark.parametrize(('name', 'dtype'), ROWS)
def test_x_merged_with_x_is_x(
  name: str, dtype: str, root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  recipe = recipes.parse(RECIPES[name])
  places = {one: str(root / dtype / one) for one in cases.THREE}
  opened = recipes.open_all(recipes.models(recipe), places)
  merged = recipes.build(recipe, opened, key=jax.random.key(0))
  checkpoint.save(tmp_path / 'out', merged.params)
  found = checkpoint.load(tmp_path / 'out')['w.weight']
  x = checkpoint.load(root / dtype / 'one')['w.weight']
  assert found.dtype == x.dtype
  if name in SCALED:
    wanted = SCALED[name] * np.float64(x)
    np.testing.assert_allclose(found, wanted, rtol=2 * jnp.finfo(dtype).eps)
  elif name in ROUNDED and dtype == 'float32':
    ulps = np.abs(np.float64(found) - x) / np.spacing(np.abs(x))
    assert 0 < ulps.max() <= 1
  else:
    # A sum with a zero loses the sign of a zero.
    words = lambda y: (y + y.dtype.type(0)).view(f'u{y.itemsize}')
    np.testing.assert_array_equal(words(found), words(x))


def test_every_method_has_a_row() -> None:
  from wsl.recipes._method import methods

  tested = {RECIPES[name]['merge_method'] for name in RECIPES}
  assert tested == set(methods.METHODS)
