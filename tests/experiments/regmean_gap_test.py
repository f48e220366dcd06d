"""Recipes of RegMean, their accuracies and errors by depth, end to end."""

import jax
import numpy as np
import pytest

from configs import regmean_gap as configs
from experiments import regmean_gap
from experiments._regmean_gap import depth, report, settings, variants
from tests.experiments import battery
from wsl import types

MISTAKES = [
  ({'recipe.inputs': 'merge'}, "inputs: no 'merge' .did you mean 'merged'"),
  ({'recipe.leaves': 'frist'}, "leaves: no 'frist' .did you mean 'first'"),
  ({'recipe.shrink': 1.5}, r'shrink=1\.5: expected 0 \.\. 1'),
  ({'factors': {'example': (1,)}}, "factors: no 'example' .did you mean"),
  ({'combined': {'shrnk': 1.0}}, "combined: no 'shrnk' .did you mean 'shrink'"),
  ({'factors': {'tasks': (3,)}}, r'tasks=3: expected 0 \.\. 2'),
  ({'coefs': (0.5,)}, r'coefs=\(0\.5,\): 1\.0 has to be one of them'),
]
LABELS = ['reference', 'inputs=merged', 'shrink=0.0', 'combined']
MERGED = [f'merged {label}' for label in LABELS]
ROW = battery.Row(
  regmean_gap,
  configs,
  [
    *('base', 'experts', 'own'),
    *(MERGED[0], LABELS[0], MERGED[1], LABELS[1], LABELS[2]),
    *(MERGED[3], LABELS[3], 'mean of 2', 'sum of 2', 'tsv of 2'),
    *('depth reference', 'depth inputs=merged', 'depth combined'),
  ],
  {'regmean.png': (900, 2000)},
  MISTAKES,
  (variants, '_merge', lambda _, recipe, *__: recipe.shrink == 0, 7),
  {'suite8': {'seeds': 2}, 'suite8_vit': {'model': 'vit'}},
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_depth_goes_from_the_experts_to_the_merge(finished):
  record = finished.record
  rows = {row['label']: row for row in record['rows']}
  own = np.asarray(record['own'])
  assert own.shape == (2, 2)
  for label, found in record['by_depth'].items():
    accuracy = np.asarray(found['accuracy'])
    assert accuracy.shape == (4, 2)
    np.testing.assert_allclose(accuracy[0], own.mean(1))
    assert rows[label]['test'][0] == pytest.approx(accuracy[-1].mean())
    # The inputs of the first block are the images: nothing accumulates.
    error = found['error']
    first = [[seed[0] for seed in error[k]] for k in ('local', 'accumulated')]
    np.testing.assert_allclose(*first, rtol=1e-4)


def test_an_expert_retains_its_own_change(finished):
  setting = settings.load(finished.config)
  init = setting.suite.init(jax.random.key(0))['encoder']
  delta = jax.tree.map(lambda x: 0.1 * x, init)
  x = setting.suite.tasks.test.x[0, :4]
  of = lambda merged: depth._of_task(
    setting.suite.outputs, setting.blocks, init, merged, delta, x
  )
  exact, none = of(delta), of(jax.tree.map(np.zeros_like, delta))
  np.testing.assert_allclose(exact[..., 0], 0, atol=1e-6)
  np.testing.assert_allclose(exact[..., 1], 1, rtol=1e-5)
  np.testing.assert_allclose(none[..., 0], 1, rtol=1e-5)
  np.testing.assert_allclose(none[..., 1], 0, atol=1e-6)


def test_correlations_within_a_position_are_kept():
  gram = types.Gram(np.ones((1, 1, 8, 8)), np.ones(1), (0, 1, 2))
  kernel = np.ones((1, 2, 2, 2, 5))
  kept = variants._within_positions('conv', kernel, gram).matrix[0, 0]
  position = np.arange(8) // 2  # rows are [h, w, channel], channels last
  np.testing.assert_array_equal(kept, position[:, None] == position)
  assert variants._within_positions('dense', kernel, None) is None


def test_verdicts():
  assert report._verdict([1.2, 3.0]).startswith('a cause')
  assert report._verdict([0.2, 3.0]).startswith('in every seed')
  assert report._verdict([-0.2, 3.0]) == 'in the mean only'
  assert report._verdict([-0.2, 0.1]) == 'no cause'


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
