"""Can three trained networks become tens of networks, and is it worth the cost?

  python -m experiments.stitch_family --config=configs/stitch_family.py:VARIANT

tiny: seconds of training, a minute of compilation; a test.

digits: ten minutes of CPU time. Vision transformers of four blocks and widths
8, 16 and 32 on scikit-learn's digits, three seeds. Expect (test %, +- over
seeds, of the best network on held-out images within these MFLOPs per image;
cost: FLOPs of the training relative to the largest anchor; the anchors
themselves cost 0.08, 0.28 and 1):

                     nets  cost  0.10        0.20        0.33        0.69
  anchors               3  0     76.2 +- 1.8 76.2 +- 1.8 89.3 +- 0.6 89.3 +- 0.6
  least squares        23  0     76.2 +- 1.8 76.2 +- 1.8 89.3 +- 0.6 89.3 +- 0.6
  SN-Net               23  0.77  80.5 +- 1.1 80.2 +- 0.8 92.8 +- 0.8 92.7 +- 1.2
  SN-Netv2             14  0.77  83.1 +- 1.2 83.1 +- 1.2 83.1 +- 1.2 91.0 +- 1.9
  by similarity        11  0.77  82.2 +- 0.7 84.3 +- 2.3 93.7 +- 1.2 93.3 +- 1.2
  at random            11  0.77  82.2 +- 1.8 82.1 +- 1.9 93.4 +- 1.3 93.1 +- 0.8
  students, labels      2  0.77  76.2 +- 1.8 89.4 +- 2.9 89.3 +- 0.6 89.0 +- 0.5
  students, distilled   2  0.77  76.2 +- 1.8 89.0 +- 2.8 89.3 +- 0.6 89.1 +- 0.8
  ... this cost each    2  1.54  76.2 +- 1.8 91.1 +- 2.5 91.1 +- 2.5 92.3 +- 0.3

Students include the anchors. Over all budgets SN-Net is above students of its
total cost (+1.0 +- 0.3) and below students of that cost each (-0.6 +- 0.6). Its
advantage is mostly due to the further training of the anchors; between the two
smallest anchors every stitch is far below a student. Stitches need training: 33
% on average without it, 86 % with it. Joint training improves all anchors but
the largest (+4.2 +- 0.7, +3.5 +- 1.1, -3.0 +- 1.8). SN-Netv2 is not above
SN-Net (-0.8 +- 0.9). Without training, stitches selected by R^2 of least
squares, or by CKA, are above random ones of the same cost (+11.0 +- 2.3, +7.4
+- 1.8); with training, by little (+1.4 +- 1.2).

images: the same on images from a folder of yours: --config.data=FOLDER with
the task below (see wsl.data.folder).
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Small vision transformers on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # of the digits, or in that folder
      'held_out': 248,  # training images that select networks
      'seeds': 3,
      'seed': 0,
      # The anchors, smallest first; v2 stitches the first and the last.
      'widths': (8, 16, 32),
      'depths': (4, 4, 4),
      'heads': 4,
      'patch': 2,
      'training': {'epochs': 40, 'batch_size': 64, 'learning_rate': 3e-3},
      'calibration': 100,  # training images for least squares
      # Epochs of v1; all other trainings have its cost.
      'joint': {
        'epochs': 60,
        'learning_rate': 3e-3,
        'rank': 8,  # of v2's updates
        'buckets': 8,  # of v2's costs
        'rising': False,  # whether costlier buckets are drawn more often
      },
      # Networks of the depth of the last anchor, their teacher.
      'students': {'widths': (12, 24)},
      # Among all stitches between neighbours.
      'selection': {'count': 8, 'measure': 'residual'},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.seeds = 2
  config.widths, config.depths, config.heads = (4, 8), (2, 2), 2
  config.patch = 4
  config.training.epochs, config.joint.epochs = 6, 2
  config.joint.rank = 2
  config.students.widths = (6,)
  config.selection.count = 2
  return config


def images() -> ml_collections.ConfigDict:
  """A real task, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.held_out = 1000
  config.widths, config.students.widths = (16, 32, 64), (24, 48)
  config.patch = 7
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [{'joint.epochs': epochs} for epochs in (15, 30, 60)]


get_config = _variants.chooser(tiny, digits, images)
