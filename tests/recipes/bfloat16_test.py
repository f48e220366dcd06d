"""Merges in bfloat16 are those of float64, rounded once; mergekit's are not.

The stored values are those of some tensors under ``dtype: bfloat16`` and under
``dtype: float64``, both by mergekit.
"""

import pathlib

import numpy as np
import pytest

from tests.recipes import cases, folders
from wsl import recipes, tree

STORED = pathlib.Path(__file__).parent / 'mergekit_0_1_5_bfloat16.npz'
RECIPES = cases.CASES | {
  'arcee_fusion': {
    'merge_method': 'arcee_fusion',
    'base_model': 'base',
    'models': [{'model': 'one'}],
  }
}
# mergekit rounds once as well: it computes in float32, or copies.
EQUAL = ('linear', 'linear_sum', 'linear_base', 'slerp', 'slerp_gradient')
EQUAL += ('passthrough',)
# Differences of bfloat16 are often equal. wsl keeps all entries at the
# threshold, mergekit exactly k: another definition, not a rounding error.
TIED = ('ties_gradient', 'breadcrumbs', 'ties_rescale')
# Recipes of the same programs with other numbers.
ALIKE = ('linear_base', 'task_arithmetic_lambda', 'ties_sum', 'slerp_gradient')
ALIKE += ('nuslerp', 'ties_rescale')


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('models')
  for seed, name in enumerate(cases.THREE):
    folders.write(path / name, 'llama', seed, 'bfloat16')
  return path


@pytest.fixture(scope='module')
def stored() -> dict[str, np.ndarray]:
  with np.load(STORED) as file:
    assert 'mergekit-yaml 0.1.5' in str(file['provenance'])
    return {key: file[key] for key in file}


def merge(
  root: pathlib.Path, case: str, dtype: str, tensors: list[str]
) -> np.ndarray:
  recipe = recipes.parse(RECIPES[case] | {'dtype': dtype})
  places = {name: str(root / name) for name in cases.THREE}
  opened = recipes.open_all(recipes.models(recipe), places)
  params = recipes.build(recipe, opened).params
  read = [np.float64(tree.read(params[name])) for name in tensors]
  return np.concatenate([x.ravel() for x in read])


def ulps(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
  """Returns errors in units of the last place of bfloat16."""
  exponent = np.floor(np.log2(np.maximum(np.abs(exact), 1e-30)))
  return np.abs(found - exact) / 2.0 ** (exponent - 7)


@pytest.mark.parametrize('case', [x for x in RECIPES if x not in ALIKE])
def test_the_result_is_rounded_once(
  case: str, root: pathlib.Path, stored: dict[str, np.ndarray]
) -> None:
  tensors, i = stored['tensors'].tolist(), stored['cases'].tolist().index(case)
  exact = np.float64(stored['float64'][i])
  if case in TIED:
    exact = merge(root, case, 'float64', tensors)
  words = stored['bfloat16'][i].astype(np.uint32) << 16
  theirs = ulps(np.float64(words.view(np.float32)), exact)
  ours = ulps(merge(root, case, 'bfloat16', tensors), exact)
  assert ours.max() <= 0.501  # half a unit, and the error of float32
  if case in EQUAL:
    assert theirs.max() <= 0.501
  else:
    assert theirs.max() > 1
    assert theirs.mean() > 1.4 * ours.mean()
