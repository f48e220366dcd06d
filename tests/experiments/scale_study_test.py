"""The cost model, end to end, and its parts on numbers computed by hand."""

import copy

import pytest

from configs import scale_study as configs
from experiments import scale_study
from experiments._scale_study import (
  agreement,
  compiled,
  costs,
  formulas,
  measure,
  operations,
  pods,
  report,
)
from tests.experiments import battery

pytestmark = [
  pytest.mark.needs_devices(8),
  pytest.mark.cpu_only('the bytes of its programs are those of a CPU'),
]

MISTAKES = [
  ({'operations': ('slrep',)}, "operations: no 'slrep' .did you mean 'slerp'"),
  ({'operations': ()}, 'operations: none given'),
  ({'devices': (4096,)}, r'devices=\(4096,\): there are 8: add 1, or set XLA'),
  ({'side': 130}, 'side=130: not divisible by devices=4: take a multiple'),
  ({'models': 1}, 'models=1: expected 2 or more'),
  ({'disk.methods': ('tie',)}, "disk.methods: no 'tie' .did you mean 'ties'"),
]
PARTS = ['devices_1', 'devices_4', 'disk']
FIGURES = dict.fromkeys(
  ['roofline.png', 'times.png', 'devices.png'], (500, 900)
)
INTERRUPT = (measure, 'on', lambda setting, devices: devices == 4, 1)
ROW = battery.Row(
  scale_study,
  configs,
  PARTS,
  FIGURES,
  MISTAKES,
  INTERRUPT,
  variants={'gpu': {'side': 1024}},
  default='cores',
  changed=('models', 3),
)
SIZE = costs.Size(side=64, leaves=4, models=8, devices=4, rows=16)
MACHINE = costs.Machine(100, 10, 50, 5, 20, 1, 2)


def test_the_formulas_are_those_of_compiled_programs(finished):
  claims = finished.record['claims']
  bytes_of = {name for name in claims if name.startswith('bytes')}
  assert bytes_of == {
    *(f'bytes: {quantity}' for quantity in agreement.TOLERANCES),
    'bytes: read from files',
  }
  assert not {name for name in bytes_of if not claims[name]['holds']}
  rows = finished.record['rows']
  assert {row['devices'] for row in rows} == {1, 4}
  assert len(rows) == 3 * len(finished.config.operations)
  for row in rows:
    sends = row['operation'] != 'task arithmetic' and row['devices'] > 1
    assert (row['counted']['link'] > 0) == sends
    assert row['counted']['collectives'] == row['expected']['collectives']
    assert row['seconds'] > 0
    assert row['predicted'] > 0


def test_a_wrong_formula_is_detected(finished):
  for quantity, factor in (('memory', 1.05), ('link', 1.5), ('arguments', 1.1)):
    rows = copy.deepcopy(finished.record['rows'])
    for row in rows:
      row['expected'][quantity] *= factor
    claims = agreement.judge(rows)
    assert not claims[quantity]['holds']
    assert claims[quantity]['worst'] == pytest.approx(1 - 1 / factor, rel=0.2)


@pytest.mark.parametrize('name', operations.OPERATIONS)
def test_costs_scale_with_models_and_devices(name):
  """Twice the leaves cost twice; operands and results are shared by devices."""
  one = formulas.executed(name, SIZE._replace(devices=1))
  assert one.link == one.collectives == 0
  double = formulas.executed(name, SIZE._replace(devices=1, leaves=8))
  for quantity in ('operations', 'products', 'decompositions', 'results'):
    if name == 'evaluate' and quantity == 'results':
      continue  # one number
    assert getattr(double, quantity) == 2 * getattr(one, quantity)
  for cpu in (True, False):
    some = formulas.executed(name, SIZE._replace(cpu=cpu))
    images = 16 * 64 * 4 if name == 'evaluate' else 0
    assert some.arguments - images == (one.arguments - images) / 4
    sends = name not in ('mean', 'task arithmetic', 'fisher', 'dare')
    assert (some.link > 0) == sends


def test_the_seconds_of_a_call():
  cost = costs.Cost(
    memory=300,
    operations=20,
    products=50,
    decompositions=10,
    link=40,
    collectives=3,
  )
  # max(3, 2 + 1) + 2 + 2 + 3 * 2 + 1
  assert costs.seconds(cost, MACHINE) == 14
  assert costs.bound(cost, MACHINE) == 'links'
  assert costs.bound(cost._replace(memory=2000), MACHINE) == 'memory'
  assert costs.seconds(cost._replace(memory=2000), MACHINE) == 31


def test_exchanges_in_the_text_of_a_program():
  text = """
  %a = f32[4,8]{1,0} all-gather(%x), dimensions={1}
  ROOT %b = (f32[], s32[2]{0}) all-reduce(%y, %z), to_apply=%add
  %c = (bf16[2,2]{1,0}, bf16[2,2]{1,0}) all-to-all(%u, %v)
  %d = (f32[1]{0}, f32[4]{0}) all-gather-start(%w)
  %e = f32[4]{0} all-gather-done(%d)
  %f = u8[8]{0} collective-permute(%t)
  %g = f32[8]{0} add(%e, %e), metadata={op_name="all-gather(x)"}
  """
  sent = 128 * 3 / 4 + 2 * 12 * 3 / 4 + 16 * 3 / 4 + 16 * 3 / 4 + 8
  assert compiled.exchanges(text, 4) == (sent, 5)


def test_large_models_on_paper(finished):
  by = {(r['operation'], r['model']): r for r in finished.record['pod']}
  small, large = by['slerp', '7B'], by['slerp', '70B']
  # Two models of 140 GB and the result, on 64 chips and on one.
  assert large['pod']['gigabytes'] == pytest.approx(3 * 140 / 64, rel=0.01)
  assert (large['pod']['fits'], large['chip']['fits']) == (True, False)
  assert (small['pod']['bound'], small['chip']['fits']) == ('memory', True)
  # 7 passes over 140 GB at 2.765 TB/s.
  wanted = 7 * 140e9 / 64 / 2765e9
  assert large['pod']['seconds'] == pytest.approx(wanted, rel=0.05)


def test_a_compiler_that_is_not_there(monkeypatch):
  def missing(**kwargs):
    raise RuntimeError('no libtpu\nmore')

  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', missing)
  config = configs.get_config('tiny').pod
  message = r'no compiler for v5p:4x4x4 \(no libtpu\): pip install libtpu'
  with pytest.raises(ValueError, match=message) as raised:
    pods.compile_all(config, ['mean'])
  assert len(str(raised.value)) <= 200


def test_calls_that_are_too_long_are_not_timed(finished):
  rows = copy.deepcopy(finished.record['rows'])
  for row in rows:
    row['seconds'] = None
  streamed = finished.record['disk']
  found = {d: {'rows': rows, 'machine': {}} for d in (1,)}
  claims = report.summarise(found, streamed, [], [])['claims']
  assert not [name for name in claims if name.startswith('time')]


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished, check):
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path, check):
  check(tmp_path)
