"""Times every codec against the time to write the decoded leaves: JSON lines.

  python tests/bench/codecs.py --millions=25

``encode`` and ``decode`` are GB/s of float32 task vectors, the best of some
rounds in one process; ``decode_cpu`` counts processor seconds in place of
seconds, for machines that others use, too; ``floor`` is decode over the time to
fill arrays of the same sizes with a number. ``bits`` are stored bits an entry,
header included; ``bound`` is their ratio to the order-0 entropy of the symbols.
ComPEFT has to decode 1 GB/s on two cores.
"""

from collections.abc import Callable
import functools
import json
import time
from typing import Any

from absl import app, flags
import jax
import numpy as np

from wsl import codecs, merge, tree

_MILLIONS = flags.DEFINE_float('millions', 25.0, 'parameters of a model, 1e6')
_SIDE = flags.DEFINE_integer('side', 1024, 'leaves are side x side matrices')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'rounds; the best counts')
_TASKS = flags.DEFINE_integer('tasks', 4, 'T, models of a family of masks')


def _model(side: int, leaves: int, seed: int) -> dict[str, np.ndarray]:
  """Draws a heavy-tailed task vector."""
  rng = np.random.default_rng(seed)
  draw = lambda: rng.standard_normal((side, side), np.float32) ** 3 * 1e-3
  return {f'block_{i}/kernel': draw() for i in range(leaves)}


def _best(fn: Callable[[], Any]) -> tuple[float, float, Any]:
  """Returns the best seconds and processor seconds, and the last result."""
  best, best_cpu, result = float('inf'), float('inf'), None
  for _ in range(_ROUNDS.value):
    start, start_cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(fn())
    best = min(best, time.perf_counter() - start)
    best_cpu = min(best_cpu, time.process_time() - start_cpu)
  return best, best_cpu, result


def _decode(packed: codecs.Packed) -> None:
  """Decodes leaf after leaf."""
  for leaf in jax.tree.leaves(codecs.decode(packed)):
    jax.block_until_ready(tree.read(leaf))


def main(argv: list[str]) -> None:
  """Prints a line for each codec."""
  del argv
  side = _SIDE.value
  leaves = max(round(_MILLIONS.value * 1e6 / side**2), 1)
  delta = _model(side, leaves, 0)
  nbytes = sum(x.nbytes for x in delta.values())
  fill = lambda: [np.full_like(x, 0.5) for x in delta.values()]
  floor, *_ = _best(fill)
  stack = {
    name: np.stack([x, *(_model(side, 1, t)['block_0/kernel']
                         for t in range(1, _TASKS.value))])
    for name, x in delta.items()
  }  # fmt: skip
  calls: dict[str, Callable[[], codecs.Packed]] = {
    f'compeft, density {density}': functools.partial(
      codecs.compeft, delta, density=density
    )
    for density in (0.01, 0.05, 0.1, 0.2, 0.5)
  }
  calls['bitstack, 4 blocks of rank 16'] = functools.partial(
    codecs.bitstack, delta, blocks=4
  )
  calls['skillpack, rank 64'] = functools.partial(
    codecs.skillpack, delta, rank=64
  )
  family = merge.tall_masks(stack, threshold=0.4)
  calls[f'masks of {_TASKS.value} models'] = lambda: codecs.masks(family)
  for name, call in calls.items():
    encode, _, packed = _best(call)
    decode, cpu, _ = _best(functools.partial(_decode, packed))
    size = codecs.size(packed)
    out = nbytes if not name.startswith('masks') else size.entries
    row = {
      'codec': name,
      'encode': round(out / encode / 1e9, 3),
      'decode': round(out / decode / 1e9, 3),
      'decode_cpu': round(out / cpu / 1e9, 3),
      'floor': round(decode / floor, 2),
      'bits': round(size.bits / size.entries, 4),
      'bound': round(size.bits / size.bound, 4),
    }
    print(json.dumps(row), flush=True)


if __name__ == '__main__':
  app.run(main)
