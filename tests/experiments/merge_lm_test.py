"""Merges of language models of several texts, end to end."""

import ml_collections
import numpy as np
import pytest

from configs import merge_lm as configs
from experiments import merge_lm
from experiments._merge_lm import claims as claims_lib
from experiments._merge_lm import scoring
from experiments._shared.texts import corpus, embedded
from tests.experiments import battery

MISTAKES = [
  ({'domains': ('manual', 'licenses')}, "no 'licenses' .did you mean 'licence"),
  ({'domains': ('manual',)}, r"domains=\('manual',\): expected two or more"),
  ({'data': 'no/such/folder'}, r"no data at no/such/folder.*--config\.data="),
  ({'bytes': 2_000}, "'manual' holds out 16 windows, fewer than .*windows=32"),
  ({'model': {'widht': 16}}, "'widht' .did you mean 'width'"),
  ({'methods': ('tie',)}, "no 'tie' in wsl.merge"),
  ({'methods': ('tall_masks',), 'arguments.tall_masks': {'threshold': 0.4}},
   "'tall_masks' makes a model for each domain"),
  ({'wild.methods': ('regmean',)}, "wild.methods: 'regmean' needs grams"),
  ({'wild.sizes': (2, 3)}, r'wild\.sizes=3: expected 2 \.\. 2'),
  ({'main': 'short'}, "main: no 'short'"),
  ({'wild.coefs': (0.5,)}, r'wild.coefs=\(0.5,\): expected 1 among them'),
  ({'points': 2}, 'points=2: expected 3 or more'),
]  # fmt: skip
PARTS = [
  *('base', 'long', 'joint', 'bounds', 'mean', 'sum', 'ties', 'greedy_soup'),
  *('lines', 'pool', 'wild.mean', 'wild.sum', 'wild.model_stock', 'samples'),
]
ROW = battery.Row(
  merge_lm,
  configs,
  PARTS,
  {'merges.png': (300, 1500), 'lines.png': (300, 400), 'subsets.png': (900,
    1800)},
  MISTAKES,
  (scoring, 'of_subsets', lambda *_: True, 10),
  {'texts': {'domains': (), 'wild.sizes': (2, 6, 12)}},
  default='python',
)  # fmt: skip


def test_merges_equal_what_they_are_made_of(finished):
  record = finished.record
  rows = {row['method']: np.asarray(row['test']) for row in record['rows']}
  shape = (finished.config.seeds, len(finished.config.domains))
  assert all(found.shape == shape for found in rows.values())
  # A byte that is drawn at random has 8 bits; training is below that.
  assert (rows['base'] < 7).all()
  # The ends of a line are the experts, and its middle is their average.
  [line] = np.asarray(record['lines']['bits'])
  ends = np.stack([line[0, :, 0], line[-1, :, 1]], 1)
  np.testing.assert_allclose(ends, rows['experts'], rtol=1e-5)
  np.testing.assert_allclose(line[1], rows['mean'], rtol=1e-5)
  # The one subset of the pool has all experts, at a coefficient of 1.
  gain = np.asarray(record['subsets']['mean']['untuned']['over_base'])
  change = (rows['base'] - rows['mean']).mean(1, keepdims=True)
  np.testing.assert_allclose(gain, change, atol=1e-5)


def test_claims_are_judged_in_every_seed(finished):
  claims = finished.record['claims']
  key = 'tuned Model Stock: not above task arithmetic'
  found = {
    name: np.asarray(x['tuned']['over_base'])
    for name, x in finished.record['subsets'].items()
  }
  by = (found['sum'] - found['model_stock']).mean(1)
  np.testing.assert_allclose(claims[key]['by'], by)
  assert claims[key]['holds'] == (by >= 0).all()
  [line] = np.asarray(finished.record['lines']['bits'])
  ends, middle = line[[0, -1]].mean(-1).min(0), line[1].mean(-1)
  found = claims['every line has a point better than both ends']
  np.testing.assert_allclose(found['by'], ends - middle)
  words = {(True, 1, 1): 'in every seed', (False, -1, 2): 'in the mean only'}
  for (holds, *by), word in words.items():
    assert claims_lib.verdict({'holds': holds, 'by': by}) == word


def test_samples_are_written_for_each_domain(finished):
  texts = finished.record['samples']
  names = [(x['domain'], x['model']) for x in texts]
  for domain in finished.config.domains:
    assert (domain, 'base') in names
    assert (domain, domain) in names
  assert len(texts) == 3 * len(finished.config.domains)
  shown = (finished.workdir / 'samples.txt').read_text('utf-8')
  assert all(x['prompt'] + '|' + x['text'] in shown for x in texts)


def test_splits_of_a_folder_share_no_window(tmp_path):
  (tmp_path / 'a.txt').write_bytes(bytes(range(256)) * 8)
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'x.txt').write_bytes(bytes(range(255, -1, -1)) * 20)
  (tmp_path / 'b' / 'y.txt').write_bytes(b'z' * 100)
  config = {'data': str(tmp_path), 'domains': (), 'length': 4, 'bytes': 4096}
  config['evaluation'] = {'windows': 16}
  found = corpus.load(ml_collections.ConfigDict(config))
  assert found.names == ('a', 'b')
  # 31 blocks of 16 windows, of which 25 are for training; b has 64 by limit.
  assert found.train.shape == (16 * (25 + 52), 5)
  assert found.rows.shape == (2, 16 * 52)
  assert found.texts['b']['bytes'] == 20 * 256 + 100
  for d, rows in enumerate(found.rows):
    own = np.arange(16 * 25) if d == 0 else 16 * 25 + np.arange(16 * 52)
    assert set(rows) == set(own)
  # Block 4 is the first of the validation: windows 64 .. 79.
  start = 4 * 64 % 256
  assert bytes(found.validation[0, 0]) == bytes(range(start, start + 5))
  assert bytes(found.test[0, 0]) == bytes(range(9 * 64 % 256, 9 * 64 % 256 + 5))


def test_embedded_texts_are_what_they_are_called():
  assert 'import sys\n' in embedded.code()
  assert '"assert" statement' in embedded.manual()
  assert 'é U+00E9 LATIN SMALL LETTER E WITH ACUTE\n' in embedded.characters()
  paragraphs = embedded.licences().split('\n\n')
  assert len(paragraphs) == len(set(paragraphs))
  assert 'WITHOUT WARRANTY' in embedded.licences()


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_config(tmp_path, check):
  check(tmp_path)
