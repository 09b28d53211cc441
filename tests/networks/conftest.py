"""One torch thread: the machine is shared, and sums come out in one order."""

import torch

torch.set_num_threads(1)
