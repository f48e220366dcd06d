"""The numeric tests of the suite on the device: which differ, and why."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import time
from xml.etree import ElementTree

import jax

from tests.bench._gpu import report

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARTS = (
  *('tests/merge', 'tests/deltas_test.py', 'tests/dtypes_test.py'),
  *('tests/tree', 'tests/scale', 'tests/stats', 'tests/landscape'),
  *('tests/precision_test.py', 'tests/stitch', 'tests/align'),
  *('tests/models', 'tests/train'),
)


def run(lines: report.Report, limit: float) -> None:
  """Runs folder by folder, as long as there is time."""
  end = time.monotonic() + 0.95 * limit
  parts = ('tests/tree/numerics_test.py',) if lines.small else PARTS
  for part in parts:
    left = end - time.monotonic()
    if left < 10:
      lines.line(part, 'not run: no time left')
      continue
    _part(lines, part, left)


def _part(lines: report.Report, part: str, left: float) -> None:
  """Runs the tests of one folder, and reports those that differ."""
  file = lines.out / f'{part.replace("/", "_")}.xml'
  command = [sys.executable, '-m', 'pytest', part, f'--junitxml={file}']
  command += ['-p', 'no:cacheprovider', '--no-header', '-q']
  if importlib.util.find_spec('xdist') and not lines.small:
    command += ['-n', '6', '--dist', 'worksteal']
  platform = jax.devices()[0].platform
  names = {'gpu': 'cuda,cpu', 'cuda': 'cuda,cpu'}
  given = {
    'JAX_PLATFORMS': names.get(platform, platform),
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'JAX_COMPILATION_CACHE_DIR': str(lines.out / 'compiled'),
  }
  file.unlink(missing_ok=True)
  log = file.with_suffix('.txt')
  try:
    with log.open('w') as output:
      subprocess.run(
        command, cwd=ROOT, env=os.environ | given, stdout=output,
        stderr=subprocess.STDOUT, timeout=left, check=False,
      )  # fmt: skip
  except subprocess.TimeoutExpired:
    lines.line(part, 'ended: no time left', note=f'  see {log.name}')
    return
  if not file.exists():
    raise RuntimeError(f'pytest did not run: {log.read_text()[-500:]}')
  _results(lines, part, file)


def _results(lines: report.Report, part: str, file: pathlib.Path) -> None:
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
  note = f'  of {len(cases)}'
  lines.line(f'{part}: tests that differ', len(failed), at_most=0, note=note)
  for reason, count in skipped.items():
    lines.line(f'{part}: skipped', count, note=f'  {reason}')
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
