r"""What does a merge of checkpoints do to each of its tensors?

  python -m experiments.merge_checkpoints \
    --config=configs/merge_checkpoints.py:folders --config.recipe=recipe.yml

Folders of models are merged tensor by tensor, by a recipe in mergekit's YAML or
by a function of wsl.merge. The merged model is written to merged/ in the folder
of the run, with config, tokenizer and card; report.html says what was merged,
by which coefficients, and how far the models agree in each tensor: cosines,
sign conflicts, norms and ranks, also as JSON lines in statistics.jsonl.

--dry_run prints the plan: what is read, written and held, and what would stop
the merge. A run that was killed continues when it is started again.
"""

import pathlib
from typing import Any

from absl import flags
import jax
import ml_collections

from experiments import _main
from experiments._merge_checkpoints import (
  figures,
  parts,
  plans,
  report,
  settings,
  tables,
)
from experiments._run import console, experiment, records
from wsl import recipes

NAME = 'merge_checkpoints'


def run(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, Any]:
  """Merges, measures and reports; see ``experiment.Run``."""
  experiment.check_mesh(NAME, mesh)
  out = records.Run(NAME, config, workdir)
  if out.record:
    return out.record
  setting, table = _prepare(config, out.path)
  if table.mistakes:
    raise ValueError(table.mistakes[0])
  out.begin(settings.describe(setting))
  plans.show(f'{out.title}: the plan', table, setting.merged)

  # Hash the inputs, merge them, and measure each tensor.
  merged = out.path / 'merged'
  inputs = out.values('inputs', lambda: parts.describe_inputs(setting))
  output = out.values('merge', lambda: parts.merge(setting, merged, inputs))
  rows = out.values('statistics', lambda: parts.statistics(setting, merged))

  # Write the lines, figures, the report and the record.
  parts.write_lines(out.path / 'statistics.jsonl', rows)
  summary = tables.summarise(rows)
  record = {
    'method': setting.recipe.method,
    'recipe': setting.text,
    'plan': dict(table.totals),
    'parameters': recipes.describe_parameters(setting.merged.parameters),
    'notes': list(dict.fromkeys(setting.merged.notes)),
    'inputs': inputs,
    'output': output,
    'statistics': summary,
  }
  drawn = figures.draw(rows, out.path)
  record['figures'] = [x.file for x in drawn]
  report.write(out, record, table, rows, setting.merged, drawn)
  tables.show(out.title, rows, summary)
  return out.finish(record)


def dry_run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Prints the plan of a run; nothing is merged.

  Args:
    config: of the run.
    workdir: its folder.

  Returns:
    The totals of the plan.

  Raises:
    ValueError: as ``run``.
  """
  setting, table = _prepare(config, pathlib.Path(workdir), probe=True)
  console.say(settings.describe(setting))
  plans.show(f'{NAME} {config.variant}: the plan', table, setting.merged)
  return dict(table.totals)


def _prepare(
  config: ml_collections.ConfigDict, path: pathlib.Path, *, probe: bool = False
) -> tuple[settings.Setting, plans.Table]:
  """Checks the config, opens the models and plans the merge."""
  settings.check(config)
  setting = settings.load(config, path / 'random')
  return setting, plans.make(setting, path / 'merged', probe=probe)


if __name__ == '__main__':
  _DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print the plan and what would stop the merge, and stop.'
  )

  def chosen(
    config: ml_collections.ConfigDict, workdir: str, **options: Any
  ) -> dict[str, Any]:
    """Merges, or prints the plan."""
    if _DRY_RUN.value:
      return dry_run(config, workdir)
    return run(config, workdir, **options)

  _main.main(NAME, chosen)
