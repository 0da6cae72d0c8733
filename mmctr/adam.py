"""PyTorch's Adam without what compiles it."""

from inspect import unwrap

import torch


class PlainAdam(torch.optim.Adam):
    """Adam (Kingma & Ba, 2015), the same numbers.

    PyTorch wraps these methods for torch.compile, and so imports it with the first optimizer: more
    than a second and 100 MB of every process that trains.
    """

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
