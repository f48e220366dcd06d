"""Lines of a section: what was measured, and what is expected."""

from collections.abc import Callable
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jaxlib
import numpy as np


def path_of(out: pathlib.Path, section: str) -> pathlib.Path:
  return out / f'{section}.jsonl'


class Report:
  """Prints and records the lines of one section.

  Attributes:
    out: the folder of the records.
    small: whether sizes are tiny; then no time is judged.
  """

  def __init__(self, out: pathlib.Path, section: str, *, small: bool) -> None:
    self.out, self.section, self.small = out, section, small

  def device(self) -> None:
    first = jax.devices()[0]
    limit = (first.memory_stats() or {}).get('bytes_limit', 0)
    versions = f'jax {jax.__version__}, jaxlib {jaxlib.__version__}'
    memory = f', {limit / 2**30:.0f} GiB' if limit else ''
    self.line('device', f'{first.platform} {first.device_kind}{memory}')
    self.line('versions', versions)

  def line(
    self,
    name: str,
    measured: Any,
    unit: str = '',
    *,
    at_most: float | None = None,
    note: str = '',
  ) -> None:
    """Records one measurement; ``at_most`` is judged if the sizes are real.

    Differences, which have no unit, are always judged.
    """
    timed = unit in ('x', 's')
    ok = None
    if at_most is not None and not (timed and self.small):
      ok = bool(measured <= at_most)  # NaN is a miss
    record = {
      'section': self.section,
      'name': name,
      'measured': measured,
      'unit': unit,
      'at_most': at_most,
      'ok': ok,
      'note': note,
    }
    with path_of(self.out, self.section).open('a') as file:
      file.write(json.dumps(record) + '\n')
    print(shown(record), flush=True)


def shown(record: dict[str, Any]) -> str:
  """Returns the line that is printed."""
  value = record['measured']
  value = f'{value:.3g}' if isinstance(value, float) else str(value)
  bound = record['at_most']
  expected = '' if bound is None else f'<= {bound:g}'
  verdict = {None: '', True: 'OK', False: 'MISS'}[record['ok']]
  head = f'{record["section"]:9}{record["name"]:48}'
  body = f'{value:>11} {record["unit"]:3}{expected:>9}  {verdict:5}'
  return f'{head}{body}{record["note"]}'.rstrip()


def seconds(
  fn: Callable[[], Any], *, rounds: int = 7, long: float = 5.0
) -> tuple[float, float]:
  """Returns the seconds of the first call, and the median of later ones.

  A call that takes long is repeated once.
  """
  times = []
  for i in range(rounds + 1):
    start = time.perf_counter()
    jax.block_until_ready(fn())
    times.append(time.perf_counter() - start)
    if i and times[-1] > long:
      break
  return times[0], statistics.median(times[1:])


def difference(found: Any, wanted: Any) -> float:
  """Returns the greatest difference relative to the greatest entry of a leaf.

  Leaves of integers and bools that differ count as infinitely different.
  """
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
  return max((_difference(x, y) for x, y in pairs), default=0.0)


def _difference(found: Any, wanted: Any) -> float:
  if jax.dtypes.issubdtype(found.dtype, jax.dtypes.prng_key):
    found, wanted = map(jax.random.key_data, (found, wanted))
  kind = jax.dtypes.issubdtype(found.dtype, np.inexact)
  found, wanted = np.asarray(found), np.asarray(wanted)
  if not kind:
    return 0.0 if np.array_equal(found, wanted) else float('inf')
  wide = np.result_type(found.dtype.type(0).astype(np.float64), np.float64)
  if np.iscomplexobj(found):
    wide = np.dtype(np.complex128)
  x, y = found.astype(wide), wanted.astype(wide)
  same = (x == y) | (np.isnan(x) & np.isnan(y))
  if same.all():
    return 0.0
  scale = np.abs(y[np.isfinite(y)]).max(initial=0.0)
  with np.errstate(invalid='ignore'):
    gap = np.abs(np.where(same, 0, x - y)).max()
  return float(gap / scale) if scale else float('inf')
