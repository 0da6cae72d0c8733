"""PyTorch's Adam, step by step the same, without the import that takes longer than its work."""

import subprocess
import sys

import torch

from mmctr.adam import PlainAdam


def stepped(kind):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3))
    optimizer = kind([{"params": [weight], "weight_decay": 0.01}], lr=0.1, fused=True)
    for step in range(4):
        if step == 2:
            restored = kind([weight], lr=1.0, fused=True)
            restored.load_state_dict(optimizer.state_dict())
            optimizer = restored
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()
    return weight.detach()


def test_it_steps_as_pytorch_s_does_to_the_last_bit():
    assert torch.equal(stepped(PlainAdam), stepped(torch.optim.Adam))


def test_it_does_not_import_what_compiles():
    code = (
        "import sys, torch\n"
        "from mmctr.adam import PlainAdam\n"
        "weight = torch.nn.Parameter(torch.ones(2, 3))\n"
        "optimizer = PlainAdam([weight], lr=0.1, fused=True)\n"
        "optimizer.zero_grad()\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
