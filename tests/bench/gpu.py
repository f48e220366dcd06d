"""Checks and times the library on one GPU: what it computes, and how fast.

  pip install -e '.[test]' 'jax[cuda13]'   # or jax[cuda12], for older drivers
  python tests/bench/gpu.py --out=results/gpu

It takes about ten minutes (``--budget_s``). Every line has what was measured,
what is expected, and OK or MISS; ``--out`` gets the same as JSON lines, and the
reports of the tests. Sections, of which ``--only=speed,products`` runs some:

  speed     merges of 8 GB of task vectors (less on small cards), against the
            time to read them once and to write the result
  compile   the compilation of further merges of 60 leaves
  spectral  TSV-M, Iso-C and Iso-CTS on the 72 matrices of ViT-B/32
  products  every operation on the GPU against the same on the CPU
  matching  weight matching of two unrelated ResNet-50
  recipes   64 merges of one model in one call
  equal     the tests of the suite, on the GPU: which differ, and why

Each section is a process of its own, so that it starts with free memory and a
failure ends no other. The exit code is 0 unless a section failed to run: a MISS
is a result. ``--small`` runs tiny sizes on any device, in one process, and
judges no time.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app, flags

from tests.bench._gpu import process, report

# The share of the budget after which a section is ended.
SECTIONS = {
  'speed': 0.35,
  'compile': 0.3,
  'spectral': 0.3,
  'products': 0.3,
  'matching': 0.2,
  'recipes': 0.1,
  'equal': 1.0,  # of what is left
}
_OUT = flags.DEFINE_string('out', None, 'folder of the records', required=True)
_ONLY = flags.DEFINE_list('only', list(SECTIONS), 'sections to run')
_BUDGET = flags.DEFINE_float('budget_s', 570.0, 'seconds for all sections')
_SMALL = flags.DEFINE_bool('small', False, 'tiny sizes, in one process')
_SECTION = flags.DEFINE_string('section', None, 'one, in this process')


def main(argv: list[str]) -> None:
  """Runs the sections, and prints a summary."""
  del argv
  out = pathlib.Path(_OUT.value).resolve()
  out.mkdir(parents=True, exist_ok=True)
  if _SECTION.value:
    _run(_SECTION.value, out, _BUDGET.value)
    return
  for name in _ONLY.value:
    if name not in SECTIONS:
      raise app.UsageError(f'no section {name}: there are {list(SECTIONS)}')
  end = time.monotonic() + _BUDGET.value
  failed = []
  for name in _ONLY.value:
    left = end - time.monotonic()
    share = left if name == 'equal' else SECTIONS[name] * _BUDGET.value
    reason = _attempt(name, out, min(left, share))
    if reason:
      print(f'{name}: FAILED to run: {reason}', flush=True)
      failed.append(name)
  _summarise(out, failed)
  sys.exit(bool(failed))


def _attempt(name: str, out: pathlib.Path, limit: float) -> str:
  """Runs one section; returns why it failed, or nothing."""
  report.path_of(out, name).unlink(missing_ok=True)
  if limit < 5:
    return 'no time left: raise --budget_s'
  if _SMALL.value:
    try:
      _run(name, out, limit)
    except Exception as error:
      traceback.print_exc()
      return repr(error).splitlines()[0]
    return ''
  command = [sys.executable, __file__, f'--section={name}', f'--out={out}']
  given = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}  # compilations are timed
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms and 'cpu' not in platforms:
    given['JAX_PLATFORMS'] = f'{platforms},cpu'  # results are compared
  command.append(f'--budget_s={limit}')
  code = process.run(command, limit=limit, given=given)
  if code is None:
    return f'ended after {limit:.0f} s; its lines until then count'
  return (code and f'exit code {code}') or ''


def _run(name: str, out: pathlib.Path, limit: float) -> None:
  """Runs one section in this process."""
  section = importlib.import_module(f'tests.bench._gpu.{name}')
  lines = report.Report(out, name, small=_SMALL.value)
  lines.device()
  section.run(lines, limit)


def _summarise(out: pathlib.Path, failed: list[str]) -> None:
  """Prints the lines that missed, and the number of all."""
  records = [
    json.loads(line)
    for name in _ONLY.value
    if report.path_of(out, name).exists()
    for line in report.path_of(out, name).read_text().splitlines()
  ]
  judged = [r for r in records if r['ok'] is not None]
  missed = [r for r in judged if not r['ok']]
  print('\nMissed:' if missed else '\nNothing missed.')
  for record in missed:
    print(report.shown(record))
  print(
    f'{len(judged) - len(missed)} OK, {len(missed)} MISS, '
    f'{len(records) - len(judged)} without expectation; '
    f'failed to run: {", ".join(failed) or "none"}; records in {out}'
  )


if __name__ == '__main__':
  app.run(main)
