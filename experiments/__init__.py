"""Experiments: one file answers one question; ``run(config, workdir)``."""

import os

# JAX's CPU decompositions call SciPy's OpenBLAS, whose threads and XLA's wait
# for each other: on busy cores a singular value decomposition of a
# millisecond takes seconds. It must be set before NumPy is imported.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
