"""Recipes give what mergekit 0.1.5 gives, to the rounding of float32."""

import pathlib

import numpy as np
import pytest

from tests.recipes import cases, folders
from wsl import recipes, tree

# Written by mergekit-yaml 0.1.5 (torch 2.14, transformers 5.24) on a CPU, from
# the folders that folders.write makes: 'ARCHITECTURE/CASE/TENSOR'.
STORED = pathlib.Path(__file__).parent / 'mergekit_0_1_5.npz'


@pytest.fixture(scope='module')
def stored() -> dict[str, dict[str, np.ndarray]]:
  found: dict[str, dict[str, np.ndarray]] = {}
  with np.load(STORED) as file:
    for key in file:
      architecture, case, name = key.split('/')
      found.setdefault(f'{architecture}/{case}', {})[name] = file[key]
  return found


@pytest.fixture(scope='module')
def models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  root = tmp_path_factory.mktemp('models')
  for architecture in folders.SHAPES:
    for seed, name in enumerate(cases.THREE):
      folders.write(root / architecture / name, architecture, seed)
  return root


def merge(root: pathlib.Path, case: str) -> dict[str, np.ndarray]:
  recipe = recipes.parse(cases.CASES[case])
  names = [model.path for model in recipes.models(recipe)]
  places = {name: str(root / name) for name in names}
  opened = recipes.open_all(recipes.models(recipe), places)
  return tree.read(recipes.build(recipe, opened).params)


def fuse_experts(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns a Mixtral as mergekit with transformers 5 writes it."""
  found = {k: v for k, v in params.items() if 'block_sparse_moe' not in k}
  for i in range(folders.LAYERS):
    at = f'model.layers.{i}.mlp.'
    moe = f'model.layers.{i}.block_sparse_moe.'
    w1, w2, w3 = (
      [params[f'{moe}experts.{j}.w{k}.weight'] for j in range(2)]
      for k in (1, 2, 3)
    )
    found[f'{at}gate.weight'] = params[f'{moe}gate.weight']
    found[f'{at}experts.down_proj'] = np.stack(w2)
    found[f'{at}experts.gate_up_proj'] = np.concatenate([w1, w3], axis=1)
  return found


PAIRS = [('llama', case) for case in cases.CASES] + [
  (other, case)
  for other in folders.SHAPES
  if other != 'llama'
  for case in cases.OTHERS
  # mergekit fuses experts, and ranks a fused tensor as one.
  if (other, case) != ('mixtral', 'ties_gradient')
]


@pytest.mark.parametrize(('architecture', 'case'), PAIRS)
def test_recipes_equal_mergekit(
  architecture: str,
  case: str,
  models: pathlib.Path,
  stored: dict[str, dict[str, np.ndarray]],
) -> None:
  found = merge(models / architecture, case)
  wanted = stored[f'{architecture}/{case}']
  wanted = {k.removeprefix('transformer.'): v for k, v in wanted.items()}
  if architecture == 'mixtral':
    found = fuse_experts(found)
  lost = set(found) - set(wanted) - {k for k in found if '.experts.' in k}
  # mergekit loses the transform of BERT's head, which its list omits.
  assert all('cls.predictions' in name for name in lost)
  assert bool(lost) == (architecture == 'bert')
  # Rounding is that of the summands, which may cancel.
  for name, x in wanted.items():
    assert found[name].dtype == np.float32
    bound = 2 * np.spacing(np.float32(4 * np.abs(x).max()))
    np.testing.assert_allclose(found[name], x, rtol=0, atol=bound)


def test_the_comparison_can_fail(
  models: pathlib.Path, stored: dict[str, dict[str, np.ndarray]]
) -> None:
  found = merge(models / 'llama', 'ties')
  for name, x in stored['llama/ties_sum'].items():
    if x.ndim == 2:
      assert np.abs(found[name] - x).max() > 1e-2
