"""The experiment on pairs of pretrained networks, end to end."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import align_pretrained as configs
from experiments import align_pretrained
from experiments._align_pretrained import resnets, rows, style_net, styles
from tests.experiments import battery

ROWS = ['naive', 'permutation', 'sign_scale', *rows.CONTROLS]

MISTAKES = [
  ({'kind': 'styles'}, "kind: no 'styles' .did you mean 'style'"),
  ({'pairs': ()}, 'pairs: none given'),
  ({'ladder': (('scales',),)}, "ladder: no 'scales' .did you mean 'scale'"),
  ({'points': 2}, 'points=2: expected 3 or more'),
  ({'data_dir': 'no/such'}, r'no weights at no/such/weights/style_one\.npz'),
]
FIGURES = dict.fromkeys(['distances.png', 'lines.png'], (300, 700))
VARIANTS = {'resnets': {'pairs': ((20, 32),)}}
ROW = battery.Row(
  align_pretrained,
  configs,
  ['one-other'],
  FIGURES,
  MISTAKES,
  variants=VARIANTS,
  default='style',
  changed=('data_dir', 'elsewhere'),
)


def test_controls_are_undone_up_to_their_noise(finished):
  found = finished.record['results']['one-other']
  assert list(found) == ROWS
  apart = {name: one['apart'] for name, one in found.items()}
  assert apart['planted'] < 1e-5
  assert found['planted']['line']['mixture'] == pytest.approx([0] * 3, abs=1e-3)
  # Noise of size r is r / sqrt(2) of the norm of both, nearly.
  assert 0.1 < apart['noise'] < finished.config.noise / 2**0.5
  assert apart['random'] > 0.9
  assert apart['permutation'] < apart['naive']
  assert apart['rematched'] < apart['random']
  assert found['permutation']['removed'] > 0
  for one in found.values():
    line = one['line']
    assert line['first'][0] == line['second'][-1] == 0
    assert line['first'][-1] == pytest.approx(line['second'][0], rel=1e-4)
    # The function of each end is that of the network as it is.
  ends = [found[name]['line']['first'][-1] for name in ROWS[:4]]
  np.testing.assert_allclose(ends, ends[0], rtol=1e-3)


def test_a_transposed_convolution_is_the_gradient_of_a_convolution():
  draw = np.random.default_rng(0).normal
  kernel, y = draw(size=(3, 3, 2, 4)), draw(size=(1, 3, 3, 4))
  # Stride 2, padded to the right and to the bottom, as TensorFlow does.
  wanted = np.zeros((1, 8, 8, 2))
  for i, j, u, v in np.ndindex(3, 3, 3, 3):
    wanted[0, 2 * i + u, 2 * j + v] += kernel[u, v] @ y[0, i, j]
  layer = {
    'kernel': jnp.asarray(np.swapaxes(kernel[::-1, ::-1], 2, 3)),
    'scale': jnp.ones(2),
    'shift': jnp.zeros(2),
  }
  found = style_net._layer(layer, jnp.asarray(y), -2)
  wanted = wanted[:, :6, :6]
  wanted = wanted - wanted.mean((1, 2), keepdims=True)
  variance = np.square(wanted).mean((1, 2), keepdims=True)
  wanted = wanted / np.sqrt(variance + style_net.EPSILON)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_checkpoint_of_another_shape_is_refused():
  config = configs.get_config('tiny')
  with pytest.raises(ValueError, match='expected variables named Variable'):
    style_net.from_checkpoint({'w': np.ones(3)})
  params = styles.draw(jnp.asarray([0, 1], jnp.uint32), config)
  assert style_net.blocks(params) == config.blocks


def test_a_cut_keeps_the_first_and_the_last_block_of_each_stage():
  deep = {f'block_{i}': i for i in range(15)} | {'stem': -1}
  found = resnets.cut({'params': deep}, 32, 20)['params']
  kept = [found[f'block_{i}'] for i in range(9)]
  assert kept == [0, 2, 4, 5, 7, 9, 10, 12, 14]
  assert found['stem'] == -1


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
