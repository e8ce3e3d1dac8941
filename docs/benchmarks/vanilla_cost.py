"""How much of what vanilla dropout costs on a CPU is PyTorch's Bernoulli draw.

    python docs/benchmarks/vanilla_cost.py [--budget 30]

A training step of the paper's CNN (batch 128, random 3x32x32 images, D = 4,096) without dropout, with nn.Dropout, and
with a dropout that multiplies by a mask drawn beforehand; and the draw alone, one number for each of N x D neurons.
Interleaved rounds for --budget seconds.
"""

import argparse

import torch
from torch import Tensor, nn

from maldrop_cli.analysis.stats import ratio_interval
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import Regulariser
from maldrop_cli.dropout.regularisers import InvertedDropout, VanillaDropout
from maldrop_cli.machine import environment
from maldrop_cli.names import Dropout
from maldrop_cli.record import describe_machine
from maldrop_cli.render.tables import Column, Table, number, to_text, with_interval
from maldrop_cli.timing.cases import Setting, fresh_model, step_of
from maldrop_cli.timing.clock import Step, measure

CPU = torch.device("cpu")
SETTING = Setting((3, 32, 32), 10, CPU)
CONFIG = RunConfig(batch_size=128, lr=1e-12, dropout=Dropout.NONE)
WIDTH, P = 4096, 0.5


class Multiply(nn.Module):
    """Dropout whose randomness has been paid for."""

    mask_ND: Tensor

    def __init__(self) -> None:
        super().__init__()
        mask_ND = torch.empty(CONFIG.batch_size, WIDTH).bernoulli_(1 - P) / (1 - P)
        self.register_buffer("mask_ND", mask_ND)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return hidden_ND * self.mask_ND


def step(regulariser: Regulariser) -> Step:
    model = fresh_model(CONFIG, SETTING)
    model.head.regulariser = regulariser
    return step_of(model, CONFIG, SETTING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=30.0)
    arguments = parser.parse_args()
    noise_ND = torch.empty(CONFIG.batch_size, WIDTH)
    cases = {
        "none": step(Regulariser()),
        "nn.Dropout": step(VanillaDropout(P)),
        "mask drawn beforehand": step(InvertedDropout(Multiply())),
        "the draw alone": lambda: noise_ND.bernoulli_(1 - P),
    }
    measured = measure(cases, CPU, ["none"], precision=0.01, budget=arguments.budget)
    none, vanilla, drawn, alone = (each.seconds for each in measured)
    added = [one - other for one, other in zip(vanilla, none, strict=True)]
    saved = [one - other for one, other in zip(vanilla, drawn, strict=True)]
    columns = [
        Column("step", [each.name for each in measured], left=True),
        Column("median ms", [number(each.median_ms, 2) for each in measured]),
        Column("× none", [with_interval(*ratio_interval(each.seconds, none)) for each in measured]),
        Column(
            "share of what nn.Dropout adds",
            ["–", "1", *(with_interval(*ratio_interval(each, added)) for each in (saved, alone))],
        ),
    ]
    notes = ["Of the mask drawn beforehand: what it saves, by drawing, scaling and storing no mask."]
    machine = describe_machine(environment(torch.device("cpu")))
    print(to_text([Table(f"Vanilla dropout, medians and 95 % intervals; {machine}", columns, notes)], "markdown"))


if __name__ == "__main__":
    main()
