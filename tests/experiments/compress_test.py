"""Rates and distortions of codecs, end to end."""

import numpy as np
import pytest

from configs import compress as configs
from experiments import compress
from experiments._compress import runs
from tests.experiments import battery

MISTAKES = [
  ({'codecs': ('bitstck',)}, "codecs: no 'bitstck' .did you mean 'bitstack'"),
  ({'ranks': ()}, 'ranks: none given'),
  ({'densities': (0.1, 2.0)}, 'densities=2.0: expected 0.0001 .. 1'),
]
CODECS = ('compeft', 'skillpack', 'bitstack', 'svd', 'tall_masks')
ROW = battery.Row(
  compress,
  configs,
  ['base', 'experts', 'grams', 'bounds', *CODECS],
  {'rates.png': (500, 900)},
  MISTAKES,
  (runs, '_row', lambda _, codec, *__: codec == 'bitstack', 6),
  {'digits': {'seeds': 3, 'ranks': (2, 4, 8, 16, 32, 64, 128)}},
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return battery.tiny(tmp_path_factory, ROW)


def rows(finished, codec):
  return [r for r in finished.record['rows'] if r['codec'] == codec]


def test_more_bits_are_nearer(finished):
  for codec in ('compeft', 'bitstack', 'svd'):
    low, high = rows(finished, codec)
    assert low['bits'] < high['bits']
    assert low['error'] > high['error']
    assert 1 - 1e-6 <= low['bits'][0] / low['bounds'][0] < 2


def test_baseline_sizes_are_those_of_the_formula(finished):
  # Factors [r, m] and [n, r] in float16 and a scale for each of three
  # matrices; biases, and scales and biases of two norms, in float32.
  shapes, vectors = [(64, 32), (32, 32), (32, 32)], (3 + 2 * 2) * 32
  entries = sum(m * n for m, n in shapes) + vectors
  bits = sum(16 * 4 * (m + n) + 32 for m, n in shapes) + 32 * vectors
  first = rows(finished, 'svd')[0]
  np.testing.assert_allclose(first['bits'], bits / entries)
  (family,) = rows(finished, 'tall_masks')
  np.testing.assert_allclose(family['bits'], 1 + 32 / 2)


def test_restored_experts_are_better_than_the_base(finished):
  record = finished.record
  for row in record['rows']:
    assert row['accuracy'] > record['base']
  claims = record['claims']
  name = 'BitStack: each budget has a lower error than the one below'
  assert claims[name]['holds']


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
