"""Old galleries and new queries, end to end."""

import json

import jax
import jax.numpy as jnp
from matplotlib import image
import numpy as np
import pytest

from configs import compatible as configs
from experiments import compatible
from experiments._compatible import recipes, settings
from tests.experiments import refusal


class StoppedError(Exception):
  pass


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A tiny run that broke off after its first chain."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  measure = settings.measure

  def breaking(setting, method, stages):
    if method == 'independent':
      raise StoppedError
    return measure(setting, method, stages)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(settings, 'measure', breaking)
    with pytest.raises(StoppedError):
      compatible.run(config, str(workdir))
  record = compatible.run(config, str(workdir))
  return workdir, config, record


def test_no_finished_part_is_computed_twice(finished):
  lines = (finished[0] / 'metrics.jsonl').read_text().splitlines()
  found = [p['part'] for p in map(json.loads, lines) if 'part' in p]
  methods = finished[1].methods
  assert found == [m + end for m in methods for end in ('', '.retrieval')]


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert [row['method'] for row in record['rows']] == list(config.methods)
  count = len(config.stages.classes)
  for found in record['results'].values():
    for metric in ('top1', 'map'):
      matrices = np.asarray(found[metric])
      assert matrices.shape == (config.seeds, count, count)
      assert matrices.min() >= 0
      assert matrices.max() <= 1
    assert len(found['compatibility']) == config.seeds


def test_only_what_is_trained_for_it_searches_an_old_gallery(finished):
  _, _, record = finished
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


@pytest.mark.parametrize('name', ['pairs.png', 'matrices.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert min(pixels.shape[:2]) > 400
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


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


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(compatible.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('images').data == 'data'
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  for entry in configs.sweep():
    config = configs.get_config('digits')
    config.update_from_flattened_dict(entry)
