"""What does an operation cost, and does its formula predict it?

  python -m experiments.scale_study --config=configs/scale_study.py:VARIANT

tiny: seconds, a test.

cores: two minutes on two cores, most of it compilation. One to eight virtual
devices, which share the cores: with XLA_FLAGS as below. Numbers of devices that
are not there are left out, so that the same command measures one GPU.

  XLA_FLAGS='--xla_force_host_platform_device_count=8
    --xla_cpu_multi_thread_eigen=false' python -m ...

The second flag gives each device one thread. In two processes of two devices,
with device_count=2 in XLA_FLAGS:

  python -m experiments.launch.hosts --hosts=localhost,localhost scale_study
    --config=configs/scale_study.py:cores --config.devices="(4,)" --workdir=DIR

gpu: larger leaves, for one or more accelerators.

The rates of the pod are those of the data sheet of the v5p,
https://cloud.google.com/tpu/docs/v5p: 2765 GB/s and 95 GB of memory a chip, 459
TFLOP/s in bfloat16, 1200 GB/s of links in both directions; a v5p-128 has 64
chips, 4x4x4. Three rates are not on it and are ASSUMED: products of float32 at
the highest precision take six passes of bfloat16, so a sixth of the peak;
operations of entries run at 1e13 a second; a decomposition takes a hundred
operations of products for each m n min(m, n).
"""

import ml_collections

from configs import _variants


def cores() -> ml_collections.ConfigDict:
  """Virtual devices of a CPU."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'operations': (
        *('mean', 'task arithmetic', 'slerp', 'fisher', 'dare', 'ties'),
        *('ties leaf', 'dare + ties', 'regmean', 'iso_c', 'tsv', 'gains'),
        'evaluate',
      ),
      'devices': (1, 2, 4, 8),
      # Models of leaves [side, side]; on several devices the largest alone.
      'side': 256,
      'leaves': (1, 4, 16),
      'models': 8,
      'rows': 64,  # images of the evaluation
      'repeats': 9,  # rounds; the fastest counts
      'longest': 4.0,  # seconds; longer calls are not timed
      # More devices are counted only: those of a CPU wait for each other in few
      # threads, and XLA aborts when one waits for 40 seconds.
      'timed': 4,
      # Programs that measure the rates: entries of the array, side of matrices.
      'probe': {'entries': 2**22, 'side': 256},
      # Models in files; probe: whether the plan measures the disk.
      'disk': {
        'methods': ('sum', 'ties'),
        'models': 4,
        'leaves': 8,
        'side': 1024,
        'probe': True,
      },
      'pod': {
        'kind': 'v5p-128',
        'topology': 'v5p:4x4x4',
        'chips': 64,
        'gigabytes': 95.0,
        'models': 8,  # in bfloat16
        'rows': 4096,
        'sizes': {
          '7B': {'parameters': 7e9, 'side': 4096},
          '70B': {'parameters': 70e9, 'side': 8192},
        },
        # Of one chip. Links: half of both directions.
        'rates': {
          'memory': 2765e9,
          'operations': 1e13,
          'products': 459e12 / 6,
          'decompositions': 459e12 / 6 / 100,
          'link': 600e9,
          'call': 1e-4,
          'exchange': 1e-5,
        },
        # Operations that are compiled for the pod; needs pip install libtpu.
        'compiled': (),
        'compiled_leaves': 4,
      },
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = cores()
  config.operations = ('task arithmetic', 'slerp', 'iso_c', 'gains', 'evaluate')
  config.devices = (1, 4)
  config.side, config.leaves, config.models = 128, (1, 2), 2
  config.rows, config.repeats = 8, 2
  config.probe = {'entries': 2**14, 'side': 32}
  config.disk.update({'methods': ('sum',), 'leaves': 2, 'side': 32})
  config.disk.probe = False
  return config


def gpu() -> ml_collections.ConfigDict:
  """One or more accelerators."""
  config = cores()
  config.side, config.leaves, config.rows = 1024, (1, 8, 64), 1024
  config.probe = {'entries': 2**28, 'side': 4096}
  return config


get_config = _variants.chooser(tiny, cores, gpu, default='cores')
