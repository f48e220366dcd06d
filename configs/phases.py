"""Which phases does a zoo over temperature and load have?

  python -m experiments.phases --config=configs/phases.py:VARIANT

tiny: seconds, a test.

digits: three minutes on two shared cores. Perceptrons 64-W-W-10 on 1000 digits;
108 networks, and 108 curves between seeds. Expect 3 cells of phase I, 22 of II,
5 of IV-A (test 94.5 %, CKA 0.73), 6 of IV-B (96.4 %, 0.88), and averages of
aligned seeds that lose 10.1, 14.4, 13.0 and 2.3 points.

noisy: the same with a tenth of the labels random. Expect 27 cells of phase II,
8 of III and 1 of IV-B.

images: a task of a folder of yours, --config.data=FOLDER --config.task=NAME
(see wsl.data.folder).
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Perceptrons of six widths on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': '',  # in the folder
      'examples': 1000,  # training images, at most
      'noise': 0.0,  # fraction of training labels that are random
      'seeds': 3,
      'seed': 0,
      'widths': (2, 4, 8, 16, 32, 64),  # the load: of both hidden layers
      # The temperature: peak rates of SGD with momentum.
      'rates': (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
      'epochs': 50,
      'batch_size': 50,
      'weight_decay': 5e-4,
      'at_once': 18,  # networks side by side by vmap
      'hessian': {
        'examples': 500,
        'batch_size': 250,
        'steps': 15,
        'probes': 15,
      },
      'curve': {
        'bends': 3,
        'points': 5,
        'epochs': 30,
        'batch_size': 50,
        'learning_rate': 0.1,
      },
      'plane': {'examples': 500, 'grid': 21},  # of figures
      # Thresholds: nats, nats, CKA.
      'phases': {'low_loss': 0.1, 'barrier': 0.1, 'similar': 0.8},
    }
  )


def noisy() -> ml_collections.ConfigDict:
  """With random labels."""
  config = digits()
  config.noise = 0.1
  config.phases.low_loss = 0.5
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.update(
    {'examples': 200, 'seeds': 2, 'widths': (2, 8), 'rates': (0.003, 0.1)}
  )
  config.epochs = 10
  config.hessian.update({'examples': 50, 'steps': 3, 'probes': 2})
  config.curve.update({'points': 3, 'epochs': 2})
  config.plane.update({'examples': 50, 'grid': 9})
  return config


def images() -> ml_collections.ConfigDict:
  """A real task, from a folder of the user."""
  config = digits()
  config.update({'data': 'data', 'task': 'fashion', 'examples': 4000})
  config.widths = (2, 4, 8, 16, 32, 64, 128)
  config.epochs = 30
  return config


get_config = _variants.chooser(tiny, digits, noisy, images)
