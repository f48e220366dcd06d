"""Stitches across the depths of a zoo, end to end."""

import numpy as np
import pytest

from configs import stitch_zoo as configs
from experiments import stitch_zoo
from experiments._stitch_zoo import resnets, settings
from tests.experiments import battery
from wsl import checkpoint, data, models

WAYS = ['affine', 'affine, reset', 'trained', 'random', 'itself']
PARTS = [
  *('ResNet-8', 'ResNet-14', 'ResNet-14 random'),
  *('alone', '8 on 14', '14 on 8'),
]

MISTAKES = [
  ({'cuts': (0,)}, r'cuts: 0 is none of the ninths 1 \.\. 9'),
  ({'cuts': ()}, 'depths, cuts: give two depths or more, and a cut'),
  ({'depths': (8,)}, 'depths, cuts: give two depths'),
  ({'close': ((8, 20),)}, r'close: no depth 20 among \[8, 14\]'),
  ({'depths': (8, 13), 'close': ()}, r'depth=13: expected 6 n \+ 2'),
  ({'kinds': ('afine',)}, "no kind 'afine' .*'affine'"),
  ({'weights': 'no/such'}, r'no weights at no/such/cifar_resnet8\.npz'),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
  ({'fit.examples': 5000}, r'fit\.examples=5000: expected 1 \.\. 1348'),
  ({'evaluation.examples': 450}, r'evaluation\.examples=450: expected 1 \.\.'),
  ({'training.optimizer': 'sgdd'}, "no 'sgdd' .did you mean 'sgd'"),
]

FIGURES = dict.fromkeys(['costs.png', 'cuts.png'], (500, 900))
VARIANTS = {'cifar': {'depths': (20, 32, 44, 56)}}
ROW = battery.Row(
  stitch_zoo, configs, PARTS, FIGURES, MISTAKES, variants=VARIANTS
)


def test_every_pair_is_measured_and_close_ones_in_all_ways(finished):
  config, record = finished.config, finished.record
  assert list(record['alone']) == ['ResNet-8', 'ResNet-14']
  for one in record['alone'].values():
    assert 0 <= one['accuracy'] <= 1
  pairs = [(row['bottom'], row['top']) for row in record['stitches']]
  assert pairs == [(8, 14), (14, 8)]
  plain, close = record['stitches']
  assert list(plain['ways']) == ['affine']
  assert list(close['ways']) == WAYS
  assert plain['pairs'] == [[2, 4]]
  assert close['pairs'] == [[4, 2]]
  for row in record['stitches']:
    for values in (row['residual'], *row['ways'].values()):
      assert len(values) == len(config.cuts)
      assert all(0 <= value <= 1 for value in values)


def test_costs_are_between_those_of_the_networks(finished):
  record = finished.record
  shallow, deep = (one['flops'] for one in record['alone'].values())
  assert shallow < deep
  for row in record['stitches']:
    # The adapter adds its own products.
    assert shallow < row['flops'][0] < 1.2 * deep


def test_cuts_are_in_the_same_stage_of_all_networks():
  for cut in range(1, settings.PARTS + 1):
    stages = set()
    for depth in (8, 14, 20, 32, 44, 56, 110):
      count = depth // 6
      found = settings.position(depth, cut)
      assert 1 <= found <= 3 * count
      stages.add((found - 1) // count)
    assert stages == {(cut - 1) // 3}
  assert [settings.position(56, cut) for cut in (1, 3, 4, 9)] == [3, 9, 12, 27]


def test_weights_are_read_and_damaged_files_named(finished, tmp_path):
  workdir = finished.workdir
  config = configs.get_config('tiny')
  config.weights = str(tmp_path)
  part = workdir / 'parts' / 'ResNet-8.safetensors'
  variables = checkpoint.load(part)
  state = models.cifar_resnet_to_torch(variables)
  np.savez(tmp_path / 'cifar_resnet8.npz', **state)
  setting = settings.Setting(config, *data.digits())
  found = resnets.variables(setting, 8)
  np.testing.assert_array_equal(
    found['params']['stem']['conv']['kernel'],
    variables['params']['stem']['conv']['kernel'],
  )
  del state['bn1.bias']
  np.savez(tmp_path / 'cifar_resnet8.npz', **state)
  with pytest.raises(ValueError, match=r"cifar_resnet8\.npz: .*'bn1\.bias'"):
    resnets.variables(setting, 8)
  (tmp_path / 'cifar_resnet8.npz').write_bytes(b'PK\x03\x04 and no more')
  with pytest.raises(ValueError, match=r'cifar_resnet8\.npz'):
    resnets.variables(setting, 8)


def test_variants():
  with pytest.raises(ValueError, match=r"no variant 'cifr' .*'cifar'"):
    configs.get_config('cifr')
  counts = [entry['fit.examples'] for entry in configs.sweep()]
  assert counts == [50, 100, 300]


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
