r"""Where, and by how many ulps, do two checkpoints differ?

  python -m experiments.compare_checkpoints \
    --config.a=PATH --config.b=PATH --workdir=DIR

Two checkpoints of any formats (folders, shards, safetensors, PyTorch, Orbax,
NPZ, Flax, GGUF) are compared tensor by tensor and bit by bit. Names may be
dotted or nested, and dtypes may differ. Both are read in chunks, so that memory
does not depend on their size; Orbax and compressed files are read tensor by
tensor. Of each tensor: the share of entries that differ, the largest difference
absolute, relative and in ulps (representable numbers between two, counted
exactly), and the norm of the difference. Of the whole: tensors and shapes that
only one has, copies such as tied embeddings, metadata, the fields of
config.json, and tokenizer files.

A table shows the tensors that differ most; differences.jsonl has a line for
each tensor, differences.png the ulps by layer, record.json all of it. The exit
status is 0 if all tensors are equal bit by bit, 2 if not, 1 for an error.
"""

import functools
import pathlib
import sys
from typing import Any

import jax
import ml_collections

from experiments import _main
from experiments._compare_checkpoints import (
  differences,
  random_models,
  report,
  settings,
  structure,
)
from experiments._run import experiment, records

NAME = 'compare_checkpoints'
DIFFERENT = 2  # the exit status


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Compares two checkpoints; see ``experiment.Run``.

  Raises:
    ValueError: also if the folder holds a comparison of other content.
  """
  out = records.Run(NAME, config, workdir)
  setting = settings.load(config)
  if not out.record:
    out.begin(settings.describe(setting))
  sides = setting.sides
  if not sides:
    write = functools.partial(
      random_models.write, out.path / 'models', **config.random
    )
    written = out.values('models', write)
    sides = tuple(settings.opened(pathlib.Path(x)) for x in written.values())

  # Match names; compare what is beside the values, then the values.
  a, b = sides
  matched = structure.pairs(a, b)
  stamps = settings.stamps(sides)
  found = out.values(
    'structure',
    lambda: {'stamps': stamps, **structure.describe(a, b, matched)},
  )
  if found.pop('stamps') != stamps:
    raise ValueError(
      f'{workdir} compares checkpoints that have changed since: choose another '
      '--workdir, or delete it'
    )
  if out.record:
    report.show(out.title, out.record, config.rows)
    return out.record
  file = out.path / 'differences.jsonl'
  measure = functools.partial(differences.measure, matched, file)
  rows = out.values('tensors', measure)['rows']

  # Write the figure, the table and the record.
  outside = ('only_in_a', 'only_in_b', 'shapes', 'dtypes')
  record = {
    'equal': not any(found[k] for k in outside)
    and not any(row['differing'] for row in rows),
    'same_files': not (found['metadata'] or found['files']),
    'structure': found,
    'tensors': rows,
  }
  report.draw(out.path / 'differences.png', rows)
  report.show(out.title, record, config.rows)
  return out.finish(record)


def run_and_exit(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, Any]:
  """Runs the comparison; exits with a status if the checkpoints differ."""
  experiment.check_mesh(NAME, mesh)
  record = run(config, workdir)
  if not record['equal']:
    sys.exit(DIFFERENT)
  return record


if __name__ == '__main__':
  _main.main(NAME, run_and_exit)
