"""Encoders joined with decoders of others, end to end."""

import json

import jax
from matplotlib import image
import numpy as np
import pytest

from configs import relative as configs
from experiments import relative
from experiments._relative import settings, training, zero_shot
from tests.experiments import refusal
from wsl import stitch


class StoppedError(Exception):
  pass


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A tiny run that broke off between networks and decoders."""
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')

  def breaking(setting, objective, members):
    raise StoppedError

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(training, 'relative_decoders', breaking)
    with pytest.raises(StoppedError):
      relative.run(config, str(workdir))
  record = relative.run(config, str(workdir))
  return workdir, config, record


def test_no_finished_part_is_computed_twice(finished):
  lines = (finished[0] / 'metrics.jsonl').read_text().splitlines()
  found = [p['part'] for p in map(json.loads, lines) if 'part' in p]
  parts = ('', '.relative', '.pairs')
  assert found == ['images' + part for part in parts]


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert record['anchors'] == list(config.anchors)
  members = config.seeds * len(config.widths)
  pairs = members * (members - 1)
  for found in record['results'].values():
    assert np.shape(found['own']) == (config.replicates, members)
    assert list(found['methods']) == list(zero_shot.METHODS)
    for scores in found['methods'].values():
      shape = (config.replicates, pairs, len(config.anchors))
      assert np.shape(scores) == shape
      assert np.max(scores) <= 1


def test_anchors_join_what_was_never_trained_together(finished):
  _, _, record = finished
  claims = record['claims']['images']
  assert claims['relative above absolute']['holds']
  assert claims['relative above shuffled anchors']['holds']
  scores = record['results']['images']['methods']
  last = {name: np.mean(np.asarray(x)[..., -1]) for name, x in scores.items()}
  for name in ('relative', 'orthogonal', 'affine'):
    assert last[name] > 0.1, name
  for name in ('absolute', 'shuffled'):
    assert last[name] < 0, name


def test_classes_are_scored_by_the_share_that_is_right():
  setting = settings.load(configs.get_config('tiny'))
  decoder = settings.decoder(setting, 'classes')
  z = setting.images.test[0].reshape(449, -1)
  params = decoder.init(jax.random.key(0), z)['params']
  guesses = np.asarray(decoder.apply({'params': params}, z)).argmax(-1)
  found = zero_shot._score(
    setting, 'classes', params, z, zero_shot._test(setting, 'classes')
  )
  expected = np.mean(guesses == np.asarray(setting.images.test[1]))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_order_of_anchors_is_what_the_check_refuses():
  features = np.eye(3)
  mine, other = (stitch.anchors(features, ids) for ids in ('abc', 'acb'))
  with pytest.raises(ValueError, match='same examples in another order'):
    stitch.relative(features, other, like=mine)


@pytest.mark.parametrize('name', ['anchors.png', 'images.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert min(pixels.shape[:2]) > 500
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


MISTAKES = [
  ({'objectives': ('clases',)}, r"no 'clases' .did you mean 'classes'"),
  ({'relative.kind': 'cosin'}, r"no kind 'cosin' .did you mean 'cosine'"),
  ({'relative': {'kinds': 'cosine'}}, r"no argument 'kinds' .did you mean"),
  ({'translate.scale': 'all'}, "no scale 'all'"),
  ({'anchors': (6, 400)}, r'anchors.*=400: expected 2 \.\. 348'),
  ({'anchors': (40, 6)}, r'anchors=\[40, 6\]: expected growing'),
  ({'held_out': 2000}, r'validation=2000: expected 1 \.\. 1347'),
  ({'widths': (8,)}, r'widths times seeds\)=1: expected 2 or more'),
  ({'replicates': 0}, 'replicates=0: expected 1 or more'),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
  ({'task': 'uprigt'}, r"'uprigt' of the digits .did you mean 'upright'"),
]


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(relative.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('images').data == 'data'
  with pytest.raises(ValueError, match=r"no variant 'digts' .*'digits'"):
    configs.get_config('digts')
  for entry in configs.sweep():
    config = configs.get_config('digits')
    config.update_from_flattened_dict(entry)
