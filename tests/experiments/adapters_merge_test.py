"""Pools of LoRAs, their merges and the claims, end to end."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adapters_merge as configs
from experiments import adapters_merge
from experiments._adapters_merge import (
  merging,
  problems,
  report,
  settings,
  training,
)
from tests.experiments import battery
from wsl import checkpoint

MISTAKES = [
  ({'problem': 'visoin'}, "problem: no 'visoin' .did you mean 'vision'"),
  ({'pools': ('orthognal',)}, "did you mean 'orthogonal'"),
  ({'merges': ('leggo',)}, "merges: no 'leggo' .did you mean 'lego'"),
  ({'lora.rank': 9}, r'lora\.rank=9: expected at most 8'),
  ({'coefs': (0.5,)}, r'coefs=\(0\.5,\): 1\.0 has to be one of them'),
]
MERGES = ('sum', 'separate', 'lego', 'rmm', 'experts', 'lego 4', 'truncated 4')
ROW = battery.Row(
  adapters_merge,
  configs,
  [
    *('base', 'own', 'orthogonal'),
    *(f'own {name}' for name in MERGES),
    *('orthogonal sum', 'orthogonal experts'),
    *('own overlap', 'orthogonal overlap'),
  ],
  {'merges.png': (800, 2500)},
  MISTAKES,
  (merging, 'measure', lambda *args, **_: args[4] == (1.0,), 6),
  {'python': {'problem': 'language'}, 'suite8': {'problem': 'vision'}},
  default='python',
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def test_what_the_run_found(finished):
  rows = {(r['pool'], r['merge']): r for r in finished.record['rows']}
  # Bases that are disjoint have no overlap, and their LoRAs are learned.
  overlap = finished.record['overlap']
  assert max(overlap['orthogonal']) < 1e-6 < min(overlap['own'])
  for pool in ('own', 'orthogonal'):
    base, own = (finished.record[k][pool][0] for k in ('base', 'own'))
    assert own > base + 2
  # Two tasks are in the mean and one direction: each LoRA is restored.
  np.testing.assert_allclose(rows['own', 'rmm']['by_seed'], 1, atol=0.05)
  # The sum has rank 4, and is not truncated.
  curves = finished.record['curves']['own']
  assert (
    rows['own', 'truncated 4']['retained'] == rows['own', 'sum']['retained']
  )
  assert np.shape(curves) == (2, 2)
  assert 'exact sum above sums of A and of B, own' in finished.record['claims']


def test_frozen_factors_stay(finished):
  setting = settings.load(finished.config)
  pool = checkpoint.load(finished.workdir / 'parts' / 'orthogonal.safetensors')
  stack = training.stack(setting, pool)
  start = training._starts(setting, 'orthogonal')
  for name, x in stack.items():
    np.testing.assert_array_equal(x.a, start[name].a)
    assert np.abs(x.b).max() > 1e-3


def test_separate_sums_have_cross_terms(finished):
  setting = settings.load(finished.config)
  draw = np.random.default_rng(0).standard_normal
  template = training._starts(setting, 'own')
  stack = {
    k: dataclasses.replace(
      x,
      a=jnp.asarray(draw(x.a.shape[1:]), x.a.dtype),
      b=jnp.asarray(draw(x.b.shape[1:]), x.b.dtype),
      scale=jnp.ones(2, x.a.dtype),
    )
    for k, x in template.items()
  }
  name, x = next(iter(stack.items()))
  exact = sum(x.b[t] @ x.a[t] for t in range(2)).T
  wrong = (x.b[0] + x.b[1]) @ (x.a[0] + x.a[1])
  of = lambda method: merging.call(setting, method)(stack)[name]
  for found, wanted in ((of('sum'), exact), (of('separate'), wrong.T)):
    np.testing.assert_allclose(found, [wanted] * 2, rtol=1e-4, atol=1e-4)


def test_a_language_model_has_no_heads():
  config = configs.get_config('python')
  config.update({'bytes': 60_000, 'length': 16, 'domains': ('manual', 'code')})
  config.model = {'width': 8, 'depth': 1, 'heads': 2, 'hidden': 8}
  config.evaluation = {'windows': 4, 'batch_size': 4}
  problem = problems.load(config)
  params = problems.shapes(problem)
  assert problems.heads_of(problem, params) == {}
  windows = problem.test[0]
  for fn in (problem.loss, problem.score):
    assert jax.eval_shape(fn, params['body'], {}, windows).shape == ()


def test_claims_are_judged_by_seed():
  setting = settings.Setting(configs.get_config('tiny'), None)  # type: ignore[arg-type]
  one = np.ones(2)
  retained: Any = {
    (pool, name): one * value
    for pool in ('own', 'orthogonal')
    for name, value in (('sum', 0.5), ('separate', 0.2), ('lego', 0.6))
  }
  level = {'own': one, 'orthogonal': 0.5 * one}
  curves = {'own': [one, 0 * one], 'orthogonal': [one, one]}
  found = report._claims(setting, retained, level, curves)
  holds = {claim: x['holds'] for claim, x in found.items()}
  assert holds == {
    'exact sum above sums of A and of B, own': True,
    'LoRA-LEGO above exact sum, own': True,
    'plain sum: orthogonal above own': True,
    'best λ: orthogonal above own': False,
    'best λ, scores: orthogonal above own': False,
  }


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
