"""Merges of checkpoints, end to end, with an interruption."""

import contextlib
import html.parser
import io
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import yaml

from configs import merge_checkpoints as configs
from experiments import merge_checkpoints
from experiments._merge_checkpoints import (
  by_method,
  coefs,
  figures,
  inputs,
  modules,
  parts,
)
from tests.experiments import battery
from wsl import checkpoint, deltas, merge, recipes, scale, tree

MISTAKES = [
  ({'method': 'tise'}, "method: 'tise': no 'tise' in wsl.merge .*'ties'"),
  ({'arguments.ties': {'densty': 0.2}}, "'densty' .did you mean 'density'"),
  ({'arguments.tise': {}}, "arguments: no 'tise' .*'ties'"),
  ({'method': 'fisher'}, "arguments.fisher: fisher needs .*'fishers'"),
  ({'method': 'slerp+sum'}, r"slerp returns a model: leave '\+sum' out"),
  ({'method': 'ties+slerp'}, 'only the first function may take models'),
  ({'method': 'weighted_mean'}, 'weighted_mean does not map models'),
  ({'unmatched': 'eror'}, "unmatched: no 'eror' .*'error'"),
  ({'dtype': 'bfloat'}, "dtype: no 'bfloat' .*'bfloat16'"),
  ({'coef': float('nan')}, 'coef: coef is NaN, expected a number'),
  ({'coef_by_regex': (('(', 1.0),)}, "'[(]' is no regular expression"),
  ({'coef_by_layer.depth': 'layers'}, 'expected one group that captures'),
  ({'random.layers': 0, 'base': 'none'}, "there is no folder 'none'"),
  ({'random.layers': 0, 'models': ()}, r'models: none given: --config\.recipe'),
  ({'random.layers': 0, 'base': ''}, 'without a base there is no task vector'),
  ({'recipe': 'none.yml'}, 'recipe: it names its models'),
  (
    {'recipe': 'none.yml', 'models': (), 'base': ''},
    "there is no file 'none.yml'",
  ),
]

PARTS = ['inputs', 'merge', 'statistics']
FIGURES = {
  'layers.png': (500, 1500),
  'norms.png': (500, 1000),
  'conflicts.png': (400, 1000),
  'sizes.png': (300, 1000),
}
# (module, function, condition, finished parts)
INTERRUPT = (parts, 'statistics', lambda *args: True, 2)
ROW = battery.Row(
  merge_checkpoints,
  configs,
  PARTS,
  FIGURES,
  MISTAKES,
  INTERRUPT,
  default='folders',
  changed=('seed', 7),
)


def opened(finished: battery.Finished) -> list[dict[str, Any]]:
  """Loads the base, the experts and the base with the adapter."""
  folder = finished.workdir / 'random'
  base = checkpoint.load(folder / 'base')
  names = inputs.floats(base)
  models = [checkpoint.load(folder / f'expert_{i}') for i in (1, 2)]
  lora = checkpoint.load_lora(base, folder / 'adapter')
  models.append(tree.read(deltas.apply(base, lora)))
  return [
    {n: np.asarray(x[n], np.float32) for n in names} for x in (base, *models)
  ]


def test_the_merge_is_that_of_the_library(finished: battery.Finished) -> None:
  base, *models = opened(finished)
  delta = merge.ties(deltas.stack(base, models), density=0.5)
  delta = scale.by_depth(delta, depth=r'layers\.(\d+)\.', start=0.5, end=1.0)
  wanted = deltas.apply(base, delta, coef={'embed': 0.4, '.*': 0.8})
  merged = checkpoint.load(finished.workdir / 'merged')
  assert merged.keys() - wanted.keys() == {'model.position_ids'}
  for name, x in wanted.items():
    np.testing.assert_allclose(merged[name], x, rtol=1e-6, atol=1e-7)


def test_the_record_states_inputs_plan_and_coefficients(
  finished: battery.Finished,
) -> None:
  record = finished.record
  assert [len(x['digest']) for x in record['inputs']] == 4 * [64]
  assert len({x['digest'] for x in record['inputs']}) == 4
  assert record['inputs'][0]['licence'] == 'cc0-1.0'
  assert record['plan']['tensors'] == '31'
  assert record['parameters'] == [
    "coef: 0.2 in 1 tensor (regex 'embed', by layer), 0.4 .. 0.8 in 29 tensors "
    "(regex '.*', by layer)"
  ]
  files = {x['file'] for x in record['output']['files']}
  assert {'model.safetensors', 'config.json', 'README.md'} <= files
  means = record['statistics']['all']
  assert 0 < means['conflict'] < 50
  assert 0 < means['cosine'] < means['kept'] < 1


def test_there_is_a_line_of_statistics_for_each_tensor(
  finished: battery.Finished,
) -> None:
  base, *models = opened(finished)
  merged = checkpoint.load(finished.workdir / 'merged')
  lines = (finished.workdir / 'statistics.jsonl').read_text().splitlines()
  rows = {row['name']: row for row in map(json.loads, lines)}
  assert rows.keys() == base.keys()
  name = 'model.layers.1.self_attn.q_proj.weight'
  changes = [x[name] - base[name] for x in (*models, merged)]
  norms = [np.linalg.norm(x) for x in changes]
  row = rows[name]
  np.testing.assert_allclose(
    [*row['norm_ratio'], row['merged_norm_ratio']],
    np.asarray(norms) / np.linalg.norm(base[name]),
    rtol=1e-5,
  )
  cosine = np.vdot(changes[0], changes[-1]) / norms[0] / norms[-1]
  np.testing.assert_allclose(row['merged_cosine'][0], cosine, rtol=1e-5)
  assert row['effective_rank'][2] < 2.01  # the adapter has rank 2


class Page(html.parser.HTMLParser):
  """Collects tags that are open, sources, links and text."""

  def __init__(self) -> None:
    super().__init__()
    self.open: list[str] = []
    self.sources: list[str] = []
    self.anchors: list[str] = []
    self.ids: list[str] = []
    self.text = ''

  def handle_starttag(self, tag: str, attrs: Any) -> None:
    found = dict(attrs)
    self.sources += [found[k] for k in ('src', 'data') if k in found]
    self.anchors += [found['href']] if 'href' in found else []
    self.ids += [found['id']] if 'id' in found else []
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_endtag(self, tag: str) -> None:
    assert self.open.pop() == tag

  def handle_data(self, data: str) -> None:
    self.text += data


def test_the_report_needs_no_other_file(finished: battery.Finished) -> None:
  source = (finished.workdir / 'report.html').read_text()
  page = Page()
  page.feed(source)
  assert not page.open
  assert len(page.sources) == 4
  assert all(x.startswith('data:image/svg+xml;base64,') for x in page.sources)
  assert [x[0] for x in page.anchors] == len(page.anchors) * ['#']
  assert {x[1:] for x in page.anchors} == set(page.ids)
  assert not re.search(r'https?://|@import|url\(|<script', source)
  assert len(source) < 500_000
  for entry in finished.record['inputs']:
    assert entry['digest'] in page.text
  for x in finished.record['output']['files']:
    assert x['sha256'] in page.text
  assert 'model.layers.3.mlp.up_proj.weight' in page.text
  assert "regex 'embed', by layer" in page.text


def test_a_dry_run_prints_the_plan_and_merges_nothing(
  tmp_path: pathlib.Path,
) -> None:
  with contextlib.redirect_stdout(io.StringIO()) as shown:
    totals = merge_checkpoints.dry_run(configs.get_config('tiny'), tmp_path)
  assert totals['tensors'] == '31'
  assert 's' in totals['time']
  assert 'model.embed_tokens.weight' in shown.getvalue()
  assert [x.name for x in tmp_path.iterdir()] == ['random']


def test_a_recipe_is_merged_as_by_the_command(
  finished: battery.Finished, tmp_path: pathlib.Path
) -> None:
  at = finished.workdir / 'random'
  recipe = tmp_path / 'recipe.yml'
  weight = [{'filter': 'mlp', 'value': [0.0, 1.0]}, {'value': 0.5}]
  content = {
    'merge_method': 'linear',
    'models': [{'model': 'one', 'parameters': {'weight': weight}},
               {'model': str(at / 'base'), 'parameters': {'weight': 1}}],
  }  # fmt: skip
  recipe.write_text(yaml.safe_dump(content))
  config = configs.get_config('folders')
  config.recipe, config.at = str(recipe), (f'one={at / "expert_1"}',)
  config.ranks = config.hashes = False
  record = merge_checkpoints.run(config, str(tmp_path / 'run'))
  parsed = recipes.read(recipe)
  places = {'one': str(at / 'expert_1')}
  folders = recipes.open_all(recipes.models(parsed), places)
  wanted = recipes.build(parsed, folders).params
  merged = checkpoint.load(tmp_path / 'run' / 'merged')
  for name, x in wanted.items():
    np.testing.assert_array_equal(merged[name], tree.read(x))
  assert "0 .. 1 in 8 tensors (filter 'mlp')" in record['parameters'][0]
  # Without a base, statistics are of the models, and nothing has changed.
  assert record['figures'] == ['layers.png', 'conflicts.png', 'sizes.png']


def test_methods_of_models_are_scaled_about_the_base() -> None:
  base = {'w': np.zeros((2, 2), np.float32), 'n': np.arange(2)}
  models = [{**base, 'w': np.full((2, 2), v, np.float32)} for v in (1.0, 3.0)]
  config = configs.get_config('folders')
  method = by_method.parse('slerp', {'slerp': {'t': 0.5}})
  for coef in (1.0, 0.5):
    config.coef = coef
    factors = coefs.resolve(config, ['w'])
    merged = by_method.build(
      method, base, models, factors, key=None, unmatched='error'
    )
    np.testing.assert_allclose(merged['w'], 2 * coef, rtol=1e-6)
    assert merged['n'].tolist() == [0, 1]


def test_a_leaf_without_a_coefficient_is_named() -> None:
  config = configs.get_config('folders')
  config.coef_by_regex = (('mlp', 0.3),)
  with pytest.raises(ValueError, match=r"coef_by_regex: .* leaf 'w'"):
    coefs.resolve(config, ['0.mlp.w', 'w'])


def test_unmatched_tensors_are_named_with_the_remedy() -> None:
  base = {'w': np.zeros(2, np.float32), 'n': np.arange(2)}
  models = {recipes.Model(k): {'w': base['w']} for k in 'ab'}
  message = r"unmatched 'n' \(missing\) in a, b: --config\.unmatched=base"
  with pytest.raises(ValueError, match=message):
    inputs.check_unmatched(base, models, 'error')
  (note,) = inputs.check_unmatched(base, models, 'base')
  assert note == "'n' (missing) in a, b: unmatched=base"


def test_a_method_that_merges_nothing_is_named() -> None:
  method = by_method.parse('trim', {'trim': {'density': 0.5}})
  base = {'w': np.zeros(2, np.float32)}
  factors = coefs.resolve(configs.get_config('folders'), ['w'])
  with pytest.raises(ValueError, match=r"method: 'trim': .* add '\+sum'"):
    by_method.build(
      method, base, [base, base], factors, key=None, unmatched='error'
    )


def test_models_without_layers_are_drawn(tmp_path: pathlib.Path) -> None:
  row = {
    'shape': [2, 3], 'dtype': 'float32', 'base': 'a', 'models': ['b'],
    'cosine': [[1.0]], 'sign_conflict': 0.0, 'norm_ratio': [0.5],
    'effective_rank': [1.5], 'stable_rank': [1.2], 'parameters': 6,
    'merged_cosine': [1.0], 'merged_norm_ratio': 0.5,
  }  # fmt: skip
  rows = [{**row, 'name': name} for name in ('conv', 'head')]
  names = [m.name for m in modules.measures(rows)]
  assert names == ['rank', 'change', 'merged change', 'kept']
  drawn = figures.draw(rows, tmp_path)
  assert [x.file for x in drawn] == ['layers.png', 'sizes.png']
  assert figures.draw([], tmp_path) == []


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished: battery.Finished, check: Any) -> None:
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path: pathlib.Path, check: Any) -> None:
  check(tmp_path)
