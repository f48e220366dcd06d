"""Dense and sparse language models, end to end."""

import jax
import numpy as np
import pytest

from configs import experts as configs
from experiments import experts
from experiments._experts import measuring, merging, settings, training
from tests.experiments import battery

MISTAKES = [
  ({'domains': ('manual', 'licenses')}, "no 'licenses' .did you mean 'licence"),
  ({'model': {'experts': 4}}, "the experiment gives LanguageModel its 'expert"),
  ({'experts.top_k': 5}, r'experts\.top_k=5: expected 1 \.\. 4'),
  ({'merge.averages': (2, 5)}, r'merge\.averages=5: expected 1 \.\. 4'),
  ({'budgets': (2.0, 1.0)}, r'budgets=\[2\.0, 1\.0\]: expected growing'),
  ({'budgets': (0.1,)}, 'fewer than 10 steps with experts'),
  ({'experts.capacity': 0.0}, r'experts\.capacity=0\.0: expected a number'),
]
PARTS = [
  *('base', 'dense.1', 'upcycled.1', 'scratch.1'),
  *('merges.upcycled', 'tuned.upcycled', 'merges.scratch', 'tuned.scratch'),
]
ROW = battery.Row(
  experts,
  configs,
  PARTS,
  {'budgets.png': (400, 700), 'merges.png': (400, 1500)},
  MISTAKES,
  (measuring, 'tune', lambda *_: True, 5),
  {'texts': {'domains': ()}},
  default='python',
)


def test_methods_are_paid_by_their_flops(finished):
  record = finished.record
  flops = {row['method']: row['flops'] for row in record['rows']}
  # Steps are multiples of ten.
  assert 0.5 < flops['upcycled'] / flops['dense'] <= 1
  assert flops['upcycled'] < flops['scratch'] <= 2 * flops['dense']
  assert all(row['bits'][0] < 7 for row in record['rows'])


def test_all_experts_are_the_model_and_fewer_differ():
  config = configs.get_config('tiny')
  setting = settings.load(config)
  draw = lambda key: settings.init(config, setting.exact, key)
  params = jax.jit(draw)(jax.random.key(0))
  found = merging.layers(setting, params)
  bits = lambda p, model=setting.exact: training.bits(
    setting, model, jax.tree.map(lambda x: x[None], p), 'test'
  )
  whole = bits(params)
  for average, close in ((4, True), (2, False)):
    merged = merging.merge(found, merging.Variant(), average, seed=0)
    new = merging.tied(params, merged)
    assert np.allclose(bits(new), whole, rtol=1e-6) == close


def test_claims_are_judged_in_every_seed(finished):
  record = finished.record
  bits = {
    name: np.mean(x, -1)[0]
    for name, x in record['measured']['merges']['scratch']['bits'].items()
  }
  claim = record['claims']['scratch: aligned below not aligned']
  np.testing.assert_allclose(
    claim['by'], bits['not aligned'] - bits['M-SMoE'], atol=1e-12
  )
  assert claim['holds'] == (np.asarray(claim['by']) > 0).all()


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_run(check, finished):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_config(check, tmp_path):
  check(tmp_path)
