"""The numeric tests of the suite on the device: which differ, and why."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import time
from xml.etree import ElementTree

import jax

from tests.bench._gpu import deadline, process, report

PARTS = (
  *('tests/merge', 'tests/deltas_test.py', 'tests/leaves/dtypes_test.py'),
  *('tests/tree', 'tests/scale', 'tests/stats', 'tests/landscape'),
  *('tests/lowering/precision_test.py', 'tests/stitch', 'tests/align'),
  *('tests/models', 'tests/train', 'tests/adapters', 'tests/codecs'),
  'tests/surgery',
)
WORKERS = 12


def run(lines: report.Report, limit: float) -> None:
  """Runs the tests until there is no time left, and reads their report."""
  file = lines.out / 'tests.xml'
  file.unlink(missing_ok=True)
  parts = ['tests/tree/names_test.py'] if lines.small else list(PARTS)
  command = [sys.executable, '-m', 'pytest', *parts, f'--junitxml={file}']
  # A plugin of benchmarks warns of workers, and warnings are errors here.
  plugins = ('no:cacheprovider', 'no:benchmark', deadline.__name__)
  command += [x for plugin in plugins for x in ('-p', plugin)] + ['--no-header']
  if importlib.util.find_spec('xdist') and not lines.small:
    workers = min(WORKERS, os.cpu_count() or 1)
    command += ['-n', str(workers), '--dist', 'worksteal']
  platform = jax.devices()[0].platform
  given = {
    'PYTHONPATH': str(process.ROOT),
    'JAX_PLATFORMS': {'gpu': 'cuda,cpu'}.get(platform, platform),
    # Workers share the memory of the device, and what they compile.
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'JAX_ENABLE_COMPILATION_CACHE': 'true',
    'JAX_COMPILATION_CACHE_DIR': str(lines.out / 'compiled'),
    deadline.VARIABLE: str(time.time() + 0.8 * limit - 10),
  }
  with (lines.out / 'tests.txt').open('w') as log:
    process.run(
      command,
      limit=0.95 * limit - 5,
      given=given,
      stdout=log,
      stderr=subprocess.STDOUT,
    )
  if not file.exists():
    told = (lines.out / 'tests.txt').read_text()[-500:]
    raise RuntimeError(f'the tests were not reported: {told}')
  _results(lines, file)


def _results(lines: report.Report, file: pathlib.Path) -> None:
  """Reads the report of pytest."""
  cases = list(ElementTree.parse(file).iter('testcase'))
  failed = {
    f'{case.get("classname", "")}::{case.get("name")}': bad
    for case in cases
    for bad in (*case.iter('failure'), *case.iter('error'))
  }
  skipped: dict[str, int] = {}
  for case in cases:
    for skip in case.iter('skipped'):
      reason = skip.get('message', '')
      skipped[reason] = skipped.get(reason, 0) + 1
  note = f'  of {len(cases) - sum(skipped.values())} that ran'
  lines.line('tests that differ', len(failed), at_most=0, note=note)
  for reason, count in skipped.items():
    lines.line('tests skipped', count, note=f'  {reason}')
  for name, bad in failed.items():
    lines.line(name.removeprefix('tests.'), 'differs', note=f'  {_why(bad)}')


def _why(bad: ElementTree.Element) -> str:
  """Returns the lines of a failure that give its size, or its first line."""
  text = bad.text or ''
  told = [
    line.removeprefix('E').strip()
    for line in text.splitlines()
    if line.startswith('E ') and 'difference' in line
  ]
  first = (bad.get('message') or text).strip().partition('\n')[0]
  return '; '.join(told) or first[:200]
