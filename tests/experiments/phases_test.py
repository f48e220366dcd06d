"""A zoo over temperature and load, end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import phases as configs
from experiments import phases
from experiments._phases import averages, curves, report, settings, zoo
from tests.experiments import battery
from wsl import landscape

MISTAKES = [
  ({'seeds': 1}, 'seeds=1: expected 2 or more'),
  ({'widths': (8, 2)}, r'widths=\[8, 2\]: expected different, growing'),
  ({'noise': 1.5}, r'noise=1\.5: expected 0 \.\. 1'),
  ({'hessian.examples': 300}, r'hessian\.examples=300: expected 1 \.\. 200'),
  ({'data': 'no/such/folder'}, r'no data at no/such/folder.*--config\.data='),
]
PARTS = ['zoo', 'networks', 'curves', 'averages', 'planes']
FIGURES = {'phases.png': (1000, 2000), 'planes.png': (500, 500)}
INTERRUPT = (averages, 'measure', lambda *args: True, 3)
ROW = battery.Row(
  phases, configs, PARTS, FIGURES, MISTAKES, INTERRUPT,
  {'images': {'task': 'fashion'}, 'noisy': {'noise': 0.1}},
)  # fmt: skip


def test_metrics_of_the_run(finished):
  cells = finished.record['cells']
  assert [(x['width'], x['rate']) for x in cells] == [
    (2, 0.003), (2, 0.1), (8, 0.003), (8, 0.1),
  ]  # fmt: skip
  losses = {(x['width'], x['rate']): x['loss'][0] for x in cells}
  assert losses[8, 0.1] < losses[2, 0.1] < losses[2, 0.003] + 0.1
  assert losses[8, 0.1] < losses[8, 0.003]
  for x in cells:
    assert x['phase'] in landscape.PHASES
    assert 0 <= x['similarity'][0] <= 1
    assert x['barrier'][0] >= 0


def test_padding_leaves_a_narrow_network_as_it_is(finished):
  """Its units beyond the width stay zero in training, and on the curve."""
  del finished
  setting = settings.load(configs.get_config('tiny'))
  narrow, wide = (
    jax.tree.map(lambda x, i=i: x[i, 0], zoo.starts(setting)) for i in (0, 1)
  )
  kernels = [p['block_1']['dense']['kernel'] for p in (narrow, wide)]
  np.testing.assert_allclose(kernels[0][:2, :2], 2 * kernels[1][:2, :2])
  one = narrow
  gradient = jax.jit(
    jax.grad(lambda p: zoo.cross_entropy(setting, p, setting.train))
  )(one)
  kernel = gradient['block_0']['dense']['kernel']
  assert np.any(kernel[:, :2])
  assert not np.any(kernel[:, 2:])
  assert not np.any(kernels[0][2:])
  assert not np.any(gradient['block_1']['dense']['kernel'][:, 2:])
  assert not np.any(gradient['output']['kernel'][2:])


def test_the_ends_of_curves_are_in_the_order_of_cells():
  config = configs.get_config('digits')
  rate, seed = np.meshgrid(np.arange(2), np.arange(3), indexing='ij')
  planted = {'rate': jnp.asarray(rate), 'seed': jnp.asarray(seed)}
  first, second = curves.ends_of(planted, settings.pairs(config))
  assert first['rate'].tolist() == second['rate'].tolist() == [0] * 3 + [1] * 3
  assert first['seed'].tolist() == [0, 0, 1] * 2
  assert second['seed'].tolist() == [1, 2, 2] * 2


def test_claims_of_a_planted_zoo():
  """Cells of four phases, three pairs; the second claim fails in one pair."""
  ones = np.ones((2, 2, 3))
  found = {
    'loss': np.array([[2.0, 2.0], [0.05, 0.05]])[..., None] * ones,
    'connectivity': np.array([[-1.0, 0.5], [-1.0, 0.0]])[..., None] * ones,
    'similarity': 0.9 * ones,
    'trace': np.array([[9.0, 9.0], [1.0, 1.0]])[..., None] * ones,
    'top': np.array([[9.0, 9.0], [1.0, 1.0]])[..., None] * [1, 1, -1],
    'test': ones,
    'gain': np.array([[0.0, 0.0], [0.0, 1.0]])[..., None] * ones,
  }
  config = configs.get_config('tiny')
  summary = report.summarise(config, found)
  assert [x['phase'] for x in summary['cells']] == ['I', 'II', 'III', 'IV-B']
  holds = {claim: x['holds'] for claim, x in summary['claims'].items()}
  assert holds['phase III exists (cells)']
  assert not holds['phase IV-A exists (cells)']
  assert holds['networks average better in IV-B than in III (points)']
  (trace, top) = (x for claim, x in holds.items() if 'Hessian' in claim)
  assert trace
  assert not top
  assert not any('IV-A' in claim for claim in holds if 'exists' not in claim)


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
