"""A task in a module that takes its time to import."""

import torch


def threads():
    return torch.get_num_threads()
