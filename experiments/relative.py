"""Does a decoder read an encoder that it was never trained with?

Networks of several seeds and widths learn one task, classifiers and
autoencoders. Their encoders are frozen, and every one is joined to the decoder
of every other without training: as they are; over relative representations,
with decoders that learnt to read their own encoder's similarities to anchors;
and over maps of the latents, fitted to the same anchors. Anchors are images
that no network learnt from. How many does it take?

Two controls. Decoders of relative representations must fail if the anchors are
given in another order, and latents as they are should mean nothing to another
network's decoder.

  python -m experiments.relative --config=configs/relative.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
from typing import Any

import ml_collections

from experiments import _main
from experiments._relative import report, settings, training, zero_shot
from experiments._run import console, records

NAME = 'relative'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains networks, joins them, and writes what came out.

  Args:
    config: see ``configs/relative.py``.
    workdir: folder of this run; parts that are finished there are not
      computed again.

  Returns:
    The record, as in ``record.json``.

  Raises:
    ValueError: naming what is wrong in the config, before anything is trained.
    FileNotFoundError: if the data is missing.
  """
  out = records.Run(NAME, config, workdir)
  if record := out.finished():
    return record
  setting = settings.load(config)
  count = config.seeds * len(config.widths)
  console.say(
    f'{config.replicates} replicates of {count} networks, latents of widths '
    f'{list(config.widths)}; {len(setting.images.train[1])} training, '
    f'{config.held_out} held out, {len(setting.images.test[1])} test images'
  )
  out.begin()

  results = {}
  for objective in config.objectives:
    # Train encoders with their decoders, then decoders over anchors.
    networks = out.arrays(
      objective,
      functools.partial(training.networks, setting, objective),
    )
    members = settings.members(setting, networks)
    decoders = out.arrays(
      f'{objective}.relative',
      functools.partial(
        training.relative_decoders, setting, objective, members
      ),
    )

    # Join every encoder to the decoder of every other.
    results[objective] = out.values(
      f'{objective}.pairs',
      functools.partial(
        zero_shot.measure, setting, objective, members, decoders
      ),
    )
    if objective == 'images':
      shown = zero_shot.reconstructions(setting, members, decoders)
      report.draw_images(out.path / 'images.png', shown)

  # Write a figure, tables and the record.
  summary = report.summarise(config, results)
  for row in summary['rows']:
    out.log(**row)
  report.draw_anchors(out.path / 'anchors.png', summary)
  report.show(f'{NAME} {config.variant}', summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
