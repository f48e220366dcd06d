"""Merges of checkpoints: seconds and peak memory of whole processes.

A base and its experts are written to a scratch folder, as Llama folders in
shards of bfloat16, and deleted at the end. Each measurement is a fresh process,
imports and compilation included; methods are run in turn, and every line of
JSON is one method: medians over the rounds.

  floor     reads all models into one buffer, and writes one model to the disk
  wsl       ``checkpoint.save(folder, ...)``, after a ``checkpoint.plan`` of it;
            ``planned`` is the planned memory over the one it used
  mergekit  ``mergekit-yaml`` on the same files, with --mergekit=PYTHON

``over_floor`` is the time without the imports over that of the floor in the
same round, ``faster`` and ``memory`` compare with mergekit: medians of ratios
of the same round.

Run: python tests/bench/checkpoints.py --millions=250 --methods=linear,ties
"""

import argparse
from collections.abc import Callable
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

_CONFIG = {
  'architectures': ['LlamaForCausalLM'],
  'model_type': 'llama',
  'num_attention_heads': 16,
  'num_key_value_heads': 16,
  'max_position_embeddings': 2048,
  'rms_norm_eps': 1e-5,
  'torch_dtype': 'bfloat16',
  'tie_word_embeddings': False,
}
_WIDTH, _HIDDEN, _VOCABULARY, _SHARDS = 1024, 2816, 32000, 3

# The parameters of each method in mergekit's own terms.
_MERGEKIT: dict[str, dict[str, Any]] = {
  'linear': {'merge_method': 'linear', 'weight': 1.0},
  'task_arithmetic': {'merge_method': 'task_arithmetic', 'weight': 0.3},
  'slerp': {'merge_method': 'slerp', 't': 0.3},
  'ties_leaf': {'merge_method': 'ties', 'weight': 1.0, 'density': 0.2},
  'dare_linear': {
    'merge_method': 'dare_linear',
    'weight': 0.3,
    'density': 0.5,
    'rescale': True,
  },
  'dare_ties': {
    'merge_method': 'dare_ties',
    'weight': 1.0,
    'density': 0.5,
    'rescale': True,
  },
}


def merged(folder: pathlib.Path, models: int, method: str) -> Any:
  """Returns the merge of a method, on demand."""
  import jax

  from wsl import checkpoint, deltas, merge

  load = lambda t: checkpoint.load(folder / f'{t}', lazy=True)
  base, *others = (load(t) for t in range(models + 1))
  key = jax.random.key(0)
  if method == 'slerp':
    return merge.slerp(base, others[0], t=0.3)
  if method == 'slerp_global':
    return merge.slerp(base, others[0], t=0.3, scope='global')
  if method == 'linear':
    first, *rest = others
    return deltas.apply(first, merge.mean(deltas.stack(first, [first, *rest])))
  tau = deltas.stack(base, others)
  methods: dict[str, Callable[[], Any]] = {
    'task_arithmetic': lambda: merge.sum(tau),
    'ties_leaf': lambda: merge.ties(
      tau, density=0.2, scope='leaf', dialect='mergekit'
    ),
    'ties_global': lambda: merge.ties(tau, density=0.2),
    'dare_linear': lambda: merge.sum(merge.dare(tau, rate=0.5, key=key)),
    'dare_ties': lambda: merge.mean_nonzero(
      merge.elect_sign(merge.dare(tau, rate=0.5, key=key), dialect='mergekit')
    ),
  }
  coef = 1.0 if 'ties' in method else 0.3
  return deltas.apply(base, methods[method](), coef=coef)


METHODS = [*_MERGEKIT, 'ties_global', 'slerp_global']


def shapes(millions: float) -> dict[str, tuple[int, ...]]:
  """Returns the leaves of a Llama of about so many million parameters."""
  block = {
    **{f'self_attn.{x}_proj.weight': (_WIDTH, _WIDTH) for x in 'qkvo'},
    'mlp.gate_proj.weight': (_HIDDEN, _WIDTH),
    'mlp.up_proj.weight': (_HIDDEN, _WIDTH),
    'mlp.down_proj.weight': (_WIDTH, _HIDDEN),
    'input_layernorm.weight': (_WIDTH,),
    'post_attention_layernorm.weight': (_WIDTH,),
  }
  size = lambda shape: shape[0] * (shape[1] if len(shape) > 1 else 1)
  per_block = sum(map(size, block.values()))
  rest = millions * 1e6 - 2 * _WIDTH * _VOCABULARY
  leaves = {'model.embed_tokens.weight': (_VOCABULARY, _WIDTH)}
  for i in range(max(1, round(rest / per_block))):
    leaves |= {f'model.layers.{i}.{n}': s for n, s in block.items()}
  return leaves | {
    'model.norm.weight': (_WIDTH,),
    'lm_head.weight': (_VOCABULARY, _WIDTH),
  }


def generate(folder: pathlib.Path, millions: float, seed: int) -> None:
  """Writes a model of random weights: a base, or a small change of it."""
  import jax.numpy as jnp
  import numpy as np

  from wsl import checkpoint, tree

  draw = lambda seed: np.random.default_rng(seed).standard_normal(
    3_000_017, np.float32
  )
  noise = 0.02 * draw(0) + 0.002 * draw(seed) * (seed > 0)
  noise = noise.astype(jnp.bfloat16)

  def leaf(i: int, shape: tuple[int, ...]) -> tree.Stored:
    # Each leaf starts at another place, so that leaves are not alike.
    fetch = lambda: np.resize(np.roll(noise, 7_919_003 * i), shape)
    return tree.Stored(fetch, shape, noise.dtype)

  names = shapes(millions).items()
  leaves = {name: leaf(i, s) for i, (name, s) in enumerate(names)}
  size = sum(leaf.size for leaf in leaves.values())
  folder.mkdir()
  checkpoint.save(
    folder, leaves, metadata={'format': 'pt'}, shard_bytes=2 * size // _SHARDS
  )
  config = _CONFIG | {
    'hidden_size': _WIDTH,
    'intermediate_size': _HIDDEN,
    'vocab_size': _VOCABULARY,
    'num_hidden_layers': sum('q_proj' in name for name in leaves),
  }
  (folder / 'config.json').write_text(json.dumps(config))


def floor(folder: pathlib.Path, models: int) -> None:
  """Moves the bytes of a merge, with plain reads and writes."""
  buffer = memoryview(bytearray(1 << 22))
  size = 0
  for t in range(models + 1):
    size = 0
    for path in sorted((folder / f'{t}').glob('*.safetensors')):
      with open(path, 'rb', buffering=0) as file:
        while count := file.readinto(buffer):
          size += count
  with open(folder / 'floor', 'wb', buffering=0) as out:
    for done in range(0, size, len(buffer)):
      out.write(buffer[: size - done])
    os.fsync(out.fileno())  # as ``checkpoint.save`` does
  (folder / 'floor').unlink()


def recipe(folder: pathlib.Path, models: int, method: str) -> str:
  """Returns a config of mergekit, as JSON, which is YAML."""
  parameters = dict(_MERGEKIT[method])
  name = parameters.pop('merge_method')
  paths = [str(folder / f'{t}') for t in range(models + 1)]
  config: dict[str, Any] = {'merge_method': name, 'dtype': 'bfloat16'}
  if name == 'slerp':
    config['models'] = [{'model': path} for path in paths[:2]]
  else:
    config['models'] = [{'model': path} for path in paths[1:]]
  if name != 'linear':
    config['base_model'] = paths[0]
  if name.startswith('ties') or name == 'dare_ties':
    parameters['normalize'] = True
  return json.dumps(config | {'parameters': parameters})


def command(
  who: str, folder: pathlib.Path, flags: argparse.Namespace, method: str
) -> list[str]:
  """Returns the command of one measurement."""
  if who == 'mergekit':
    config = folder / 'config.yml'
    config.write_text(recipe(folder, flags.models, method))
    options = ['--no-copy-tokenizer', '--quiet', '--no-write-model-card']
    run = 'from mergekit.scripts.run_yaml import main; main()'
    out = str(folder / 'merged')
    return [flags.mergekit, '-c', run, str(config), out, *options]
  return [
    sys.executable, __file__, f'--worker={who}', f'--folder={folder}',
    f'--models={flags.models}', f'--methods={method}',
    f'--millions={flags.millions}',
  ]  # fmt: skip


def measure(words: list[str], folder: pathlib.Path) -> dict[str, float]:
  """Runs a process; returns its seconds and peak memory."""
  shutil.rmtree(folder / 'merged', ignore_errors=True)
  start = time.perf_counter()
  with tempfile.TemporaryFile() as log:
    process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    log.seek(0)
    output = log.read().decode(errors='replace')
  if process.returncode:
    raise RuntimeError(f'{words} failed:\n{output[-2000:]}')
  found = {'seconds': seconds, 'mib': usage.ru_maxrss / 1024}
  found['cpu'] = usage.ru_utime + usage.ru_stime
  said = output.strip().splitlines()[-1:]
  return found | (json.loads(said[0]) if said and 'planned' in said[0] else {})


def work(flags: argparse.Namespace) -> None:
  """Does the work of one measured process."""
  folder = pathlib.Path(flags.folder)
  if flags.worker == 'generate':
    for t in range(flags.models + 1):
      if not (folder / f'{t}').exists():
        generate(folder / f'{t}', flags.millions, t)
    return
  if flags.worker == 'floor':
    floor(folder, flags.models)
    return
  from wsl import checkpoint

  if flags.worker == 'import':
    return
  x = merged(folder, flags.models, flags.methods)
  print(json.dumps({'planned': checkpoint.plan(x).process_bytes / 2**20}))
  (folder / 'merged').mkdir()
  checkpoint.save(folder / 'merged', x, shard_bytes=5_000_000_000)


def compare(
  flags: argparse.Namespace, folder: pathlib.Path, method: str
) -> dict[str, Any]:
  """Runs every process in turn; returns the medians."""
  who = ['import', 'floor', 'wsl']
  if flags.mergekit and method in _MERGEKIT:
    who.append('mergekit')
  rounds = []
  for _ in range(flags.repeats):
    each = {w: measure(command(w, folder, flags, method), folder) for w in who}
    rounds.append(each)
  median = lambda value: round(statistics.median(map(value, rounds)), 2)
  row: dict[str, Any] = {'method': method}
  for w in who:
    for unit in ('seconds', 'mib', 'cpu'):
      row[f'{w}_{unit}'] = median(lambda r, w=w, unit=unit: r[w][unit])
  spent = lambda r: r['wsl']['seconds'] - r['import']['seconds']
  row['planned'] = median(lambda r: r['wsl']['planned'] / r['wsl']['mib'])
  row['over_floor'] = median(lambda r: spent(r) / r['floor']['seconds'])
  if 'mergekit' in who:
    ratio = lambda unit: lambda r: r['mergekit'][unit] / r['wsl'][unit]
    row['faster'], row['memory'] = (
      median(ratio('seconds')),
      median(ratio('mib')),
    )
  return row


def main() -> None:
  """Writes the models, measures, deletes them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--millions', type=float, default=250)
  parser.add_argument('--models', type=int, default=3)
  parser.add_argument('--methods', default=','.join(METHODS))
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--mergekit', default=None, help='a python that has it')
  parser.add_argument('--scratch', default=None, help='default: the system one')
  parser.add_argument('--folder', default=None, help='models to use and keep')
  parser.add_argument('--worker', default=None, help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.worker:
    work(flags)
    return
  with tempfile.TemporaryDirectory(dir=flags.scratch) as scratch:
    folder = pathlib.Path(flags.folder or scratch)
    # The peak of a process includes that of the one that started it, so this
    # one stays small.
    measure(command('generate', folder, flags, ''), folder)
    for method in flags.methods.split(','):
      print(json.dumps(compare(flags, folder, method)), flush=True)


if __name__ == '__main__':
  main()
