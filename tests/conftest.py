"""Settings that every test shares."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads cost more than they give; read when torch loads

settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("default")
