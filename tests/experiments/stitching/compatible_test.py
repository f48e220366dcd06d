"""Old galleries and new queries, end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import compatible as configs
from experiments import compatible
from experiments._compatible import recipes, settings
from tests.experiments import battery

PARTS = ['independent', 'independent.retrieval', 'bt2', 'bt2.retrieval']

MISTAKES = [
  ({'methods': ('independent', 'bt')}, "methods: no 'bt'"),
  ({'methods': ('bt2',)}, 'methods: the first must be independent'),
  ({'bt2': {'weight': 1.0}}, r"no argument 'weight' .did you mean 'weights'"),
  ({'basis.kind': 'caley'}, r"no kind 'caley' .did you mean 'cayley'"),
  ({'basis.extra': 13}, r'basis\.extra=13: expected 1 \.\. 12'),
  ({'width': 8}, 'width=8: expected 9 or more'),
  ({'stages.classes': (5, 11)}, r'the last=11: expected 5 \.\. 10'),
  ({'stages.hidden': (32,)}, r'hidden=\[32\]: expected as many of both'),
  ({'seeds': 0}, 'seeds=0: expected 1 or more'),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
]

FIGURES = dict.fromkeys(['pairs.png', 'matrices.png'], (400, 400))
# (module, function, condition, finished parts)
INTERRUPT = (settings, 'measure', lambda setting, method, stages: True, 1)
VARIANTS = {'images': {'data': 'data'}}
ROW = battery.Row(
  compatible, configs, PARTS, FIGURES, MISTAKES, INTERRUPT, VARIANTS
)


def test_scores_are_shares_for_every_seed_and_stage(finished):
  config, record = finished.config, finished.record
  assert [row['method'] for row in record['rows']] == list(config.methods)
  count = len(config.stages.classes)
  for found in record['results'].values():
    for metric in ('top1', 'map'):
      matrices = np.asarray(found[metric])
      assert matrices.shape == (config.seeds, count, count)
      assert matrices.min() >= 0
      assert matrices.max() <= 1
    assert len(found['compatibility']) == config.seeds


def test_only_compatible_training_searches_an_old_gallery(finished):
  record = finished.record
  top1 = {
    name: np.asarray(found['top1']).mean(0)
    for name, found in record['results'].items()
  }
  for name, matrix in top1.items():
    assert np.diagonal(matrix).min() > 0.6, name
  assert top1['independent'][1, 0] < 0.4
  assert top1['bt2'][1, 0] > 0.6
  # The chain of BT² begins with the model that the independent one begins with.
  first = [record['results'][m]['top1'] for m in ('independent', 'bt2')]
  np.testing.assert_array_equal(*(np.asarray(x)[:, 0, 0] for x in first))
  assert not record['claims']['independent: new/old above old/old']['holds']


@pytest.mark.parametrize('method', ['bct', 'simplex', 'simplex_hoc'])
def test_every_recipe_has_a_loss_and_features(method):
  config = configs.get_config('tiny')
  draw = np.random.RandomState(0)
  x = jnp.asarray(draw.randn(6, 8, 8, 1), jnp.float32)
  y = jnp.arange(6, dtype=jnp.int32) % 3
  old = jnp.asarray(draw.randn(2, 6, config.width), jnp.float32)
  recipe = recipes.RECIPES[method](
    recipes.Stage(config, 4, 10, x[:1], y, old, old)
  )
  key = jax.random.key(0)
  params = jax.eval_shape(recipe.start, key)
  assert ('head' in params) == (method == 'bct')
  features = jax.eval_shape(recipe.features, params, x)
  assert features.shape == (6, config.width)
  bound, targets = jax.tree.map(
    lambda leaf: leaf[1], (recipe.bound, recipe.targets)
  )
  batch = (x, y, *targets)
  assert jax.eval_shape(recipe.loss, bound, params, batch, key).shape == ()


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
