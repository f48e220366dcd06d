"""Stitches across the depths of a zoo, end to end."""

import json

from matplotlib import image
import numpy as np
import pytest

from configs import stitch_zoo as configs
from experiments import stitch_zoo
from experiments._stitch_zoo import resnets
from tests.experiments import refusal
from wsl import checkpoint, data, models

WAYS = ['affine', 'affine, reset', 'trained', 'random', 'itself']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = configs.get_config('tiny')
  return workdir, config, stitch_zoo.run(config, str(workdir))


def test_the_record_says_what_ran_and_what_came_out(finished):
  workdir, config, record = finished
  assert record == json.loads((workdir / 'record.json').read_text())
  assert record['config']['experiment'] == 'stitch_zoo'
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
  record = finished[2]
  shallow, deep = (one['flops'] for one in record['alone'].values())
  assert shallow < deep
  for row in record['stitches']:
    # The adapter adds its own products.
    assert shallow < row['flops'][0] < 1.2 * deep


def test_cuts_are_in_the_same_stage_of_all_networks():
  for cut in range(1, resnets.PARTS + 1):
    stages = set()
    for depth in (8, 14, 20, 32, 44, 56, 110):
      count = depth // 6
      found = resnets.position(depth, cut)
      assert 1 <= found <= 3 * count
      stages.add((found - 1) // count)
    assert stages == {(cut - 1) // 3}
  assert [resnets.position(56, cut) for cut in (1, 3, 4, 9)] == [3, 9, 12, 27]


@pytest.mark.parametrize('name', ['costs.png', 'cuts.png'])
def test_figures_are_images_that_show_something(finished, name):
  pixels = image.imread(finished[0] / name)
  assert pixels.shape[0] > 500
  assert pixels.shape[1] > 900
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_a_finished_run_is_skipped_and_says_so(finished, capsys):
  workdir, config, record = finished
  assert stitch_zoo.run(config, str(workdir)) == record
  assert 'finished before' in capsys.readouterr().out


def test_weights_are_read_and_damage_is_named(finished, tmp_path):
  workdir = finished[0]
  config = configs.get_config('tiny')
  config.weights = str(tmp_path)
  part = workdir / 'parts' / 'ResNet-8.safetensors'
  variables = checkpoint.load(part)
  state = models.cifar_resnet_to_torch(variables)
  np.savez(tmp_path / 'cifar_resnet8.npz', **state)
  zoo = resnets.Zoo(config, *data.digits())
  found = resnets.variables(zoo, 8)
  np.testing.assert_array_equal(
    found['params']['stem']['conv']['kernel'],
    variables['params']['stem']['conv']['kernel'],
  )
  del state['bn1.bias']
  np.savez(tmp_path / 'cifar_resnet8.npz', **state)
  with pytest.raises(ValueError, match=r"cifar_resnet8\.npz: .*'bn1\.bias'"):
    resnets.variables(zoo, 8)
  (tmp_path / 'cifar_resnet8.npz').write_bytes(b'PK\x03\x04 and no more')
  with pytest.raises(ValueError, match=r'cifar_resnet8\.npz'):
    resnets.variables(zoo, 8)


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


@pytest.mark.parametrize(('changes', 'message'), MISTAKES)
def test_mistakes_are_told_in_one_line_before_any_work(
  tmp_path, changes, message
):
  config = configs.get_config('tiny')
  refusal.check(stitch_zoo.run, config, changes, message, tmp_path / 'run')


def test_variants():
  assert configs.get_config().variant == 'digits'
  assert configs.get_config('cifar').depths == (20, 32, 44, 56)
  with pytest.raises(ValueError, match=r"no variant 'cifr' .*'cifar'"):
    configs.get_config('cifr')
  for entry in configs.sweep():
    config = configs.get_config('digits')
    config.update_from_flattened_dict(entry)
    assert config.fit.examples in (50, 100, 300)
