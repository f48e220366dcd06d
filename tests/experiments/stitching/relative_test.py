"""Encoders joined to decoders of other networks, end to end."""

import jax
import numpy as np
import pytest

from configs import relative as configs
from experiments import relative
from experiments._relative import settings, training, zero_shot
from tests.experiments import battery
from wsl import stitch

PARTS = ['images', 'images.relative', 'images.pairs']

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

FIGURES = dict.fromkeys(['anchors.png', 'images.png'], (500, 500))
# (module, function, condition, finished parts)
INTERRUPT = (training, 'relative_decoders', lambda *args: True, 1)
VARIANTS = {'images': {'data': 'data'}}
ROW = battery.Row(
  relative, configs, PARTS, FIGURES, MISTAKES, INTERRUPT, VARIANTS
)


def test_scores_have_an_entry_for_every_pair_and_number_of_anchors(finished):
  config, record = finished.config, finished.record
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


def test_anchors_join_networks_trained_separately(finished):
  record = finished.record
  claims = record['claims']['images']
  assert claims['relative above absolute']['holds']
  assert claims['relative above shuffled anchors']['holds']
  scores = record['results']['images']['methods']
  last = {name: np.mean(np.asarray(x)[..., -1]) for name, x in scores.items()}
  for name in ('relative', 'orthogonal', 'affine'):
    assert last[name] > 0.1, name
  for name in ('absolute', 'shuffled'):
    assert last[name] < 0, name


def test_classifiers_are_scored_by_accuracy():
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


def test_anchors_in_another_order_are_refused():
  features = np.eye(3)
  mine, other = (stitch.anchors(features, ids) for ids in ('abc', 'acb'))
  with pytest.raises(ValueError, match='same examples in another order'):
    stitch.relative(features, other, like=mine)


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
