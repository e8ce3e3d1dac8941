"""A training step with maldrop's scores beside one with the N x D x C tensor of contributions.

    python docs/benchmarks/dense.py [--selectors heuristic,gradient,single,joint] [--budget 20]

The dense form is MalDrop as one writes it in vectorised PyTorch: h_j W_kj for every image, neuron and class, from that
the score, `topk`, a mask, a multiplication. It drops the same neurons (tests/test_dense.py), records no gradients of
the choice, and counts no passes, which maldrop does. "dense": the tensor as PyTorch lays it out by itself, the neurons
next to each other in memory; "dense, C last": the classes. For `joint` it is the same ascent, one start after another,
with every V(p) from that tensor.

The paper's CNN, batch 128, random 3x32x32 images, D = 4,096, C = 10, rho = 256. The learning rate is next to nothing:
every step has the same to do. Interleaved rounds, --budget seconds for each of eight rows: 20 makes three minutes.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.analysis.stats import ratio_interval
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import Regulariser
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.dropout.worst import MAX_ASCENTS
from maldrop_cli.machine import environment
from maldrop_cli.names import Dropout, Granularity, Selector
from maldrop_cli.record import describe_machine
from maldrop_cli.render.tables import Column, Table, number, to_text, with_interval
from maldrop_cli.timing.cases import Setting, fresh_model, step_of
from maldrop_cli.timing.clock import Samples, Step, measure, peak_mib

CPU = torch.device("cpu")
SETTING = Setting((3, 32, 32), 10, CPU)
BASE = RunConfig(batch_size=128, rho=256, lr=1e-12)
DENSE = {"dense": False, "dense, C last": True}

Score = Callable[[Tensor, LastLayer], Tensor]


def right(each_NDC: Tensor, layer: LastLayer) -> Tensor:
    """Of the right class."""
    assert layer.labels_N is not None
    return each_NDC.gather(2, layer.labels_N[:, None, None].expand(-1, each_NDC.shape[1], 1)).squeeze(2)


def logits(layer: LastLayer) -> Tensor:
    return F.linear(layer.hidden_ND, layer.weight_CD, layer.bias_C)


def heuristic(share_NDC: Tensor, layer: LastLayer) -> Tensor:
    """V_j, section 4.1."""
    right_ND = right(share_NDC, layer)
    return right_ND - (share_NDC.sum(2) - right_ND) / (share_NDC.shape[1] - 1)


def target_scores(share_NDC: Tensor, layer: LastLayer, probability_NC: Tensor) -> Tensor:
    return right(share_NDC, layer) - (share_NDC * probability_NC[:, None]).sum(2)


def gradient(share_NDC: Tensor, layer: LastLayer) -> Tensor:
    return target_scores(share_NDC, layer, logits(layer).softmax(1))


def single(share_NDC: Tensor, layer: LastLayer) -> Tensor:
    """The loss without neuron j."""
    without_NDC = logits(layer)[:, None] - share_NDC
    return without_NDC.logsumexp(2) - right(without_NDC, layer)


SCORES: dict[str, Score] = {"heuristic": heuristic, "gradient": gradient, "single": single}


class Dense(Regulariser):
    """MalDrop by way of the N x D x C tensor. ``classes_last``: in memory."""

    def __init__(self, selector: str, per_sample: bool, rho: int, classes_last: bool = False) -> None:
        super().__init__()
        self.selector, self.per_sample, self.count, self.classes_last = selector, per_sample, rho, classes_last

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        return layer.hidden_ND * self.mask(layer), layer.weight_CD

    @torch.no_grad()
    def mask(self, layer: LastLayer) -> Tensor:
        """1 where a neuron passes, else 0: one row for each image, or one for all."""
        share_NDC = layer.hidden_ND[:, :, None] * layer.weight_CD.T
        if self.classes_last:
            share_NDC = share_NDC.contiguous()
        if self.selector == "joint":
            return self._ascend(share_NDC, layer)
        return self._without_top(SCORES[self.selector](share_NDC, layer))

    def _without_top(self, score_ND: Tensor) -> Tensor:
        if not self.per_sample:
            score_ND = score_ND.mean(0, keepdim=True)
        return torch.ones_like(score_ND).scatter(1, score_ND.topk(self.count).indices, 0.0)

    def _ascend(self, share_NDC: Tensor, layer: LastLayer) -> Tensor:
        """The worst end of all ascents, see maldrop_cli/dropout/worst.py; for a batch, of those from the worst two."""
        starts = self._starts(share_NDC, layer)
        if not self.per_sample:
            starts = sorted(starts, key=lambda mask: self._loss(mask, layer)[0].item(), reverse=True)[:MAX_ASCENTS]
        worst = starts[0]
        for best in starts:
            loss, probability_NC = self._loss(best, layer)
            for _ in range(BASE.joint_iterations):
                found = self._without_top(target_scores(share_NDC, layer, probability_NC))
                found_loss, probability_NC = self._loss(found, layer)
                if not (found_loss > loss).any():
                    break
                best = torch.where((found_loss > loss)[:, None], found, best)
                loss = torch.maximum(found_loss, loss)
            worst = torch.where((loss > self._loss(worst, layer)[0])[:, None], best, worst)
        return worst

    def _starts(self, share_NDC: Tensor, layer: LastLayer) -> list[Tensor]:
        """The masks of softmax and of all classes' vertices; for a batch, those of `heuristic` and `single` too."""
        assert layer.labels_N is not None
        classes = share_NDC.shape[2]
        scores = [gradient(share_NDC, layer)]
        if not self.per_sample:
            scores += [heuristic(share_NDC, layer), single(share_NDC, layer)]
        for shift in range(self.per_sample, classes):  # of an image, no start for its own class
            vertex_N = layer.labels_N * self.per_sample + shift
            scores.append(target_scores(share_NDC, layer, F.one_hot(vertex_N % classes, classes).to(share_NDC.dtype)))
        return [self._without_top(score_ND) for score_ND in scores]

    def _loss(self, mask: Tensor, layer: LastLayer) -> tuple[Tensor, Tensor]:
        """The loss of each image, or their mean, and softmax_NC."""
        assert layer.labels_N is not None
        logits_NC = logits(layer._replace(hidden_ND=layer.hidden_ND * mask))
        loss_N = F.cross_entropy(logits_NC, layer.labels_N, reduction="none")
        return loss_N if self.per_sample else loss_N.mean(0, keepdim=True), logits_NC.softmax(1)


def steps(selector: Selector, granularity: Granularity) -> dict[str, Step]:
    """Without dropout, maldrop's, and the dense forms."""
    config = replace(BASE, selector=selector, granularity=granularity)
    cases = {
        "none": step_of(fresh_model(replace(config, dropout=Dropout.NONE), SETTING), config, SETTING),
        "maldrop": step_of(fresh_model(config, SETTING), config, SETTING),
    }
    for name, classes_last in DENSE.items():
        model = fresh_model(config, SETTING)
        model.head.regulariser = Dense(selector, granularity is Granularity.SAMPLE, config.rho, classes_last)
        cases[name] = step_of(model, config, SETTING)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selectors", default="heuristic,gradient,single,joint")
    parser.add_argument("--budget", type=float, default=20.0)
    arguments = parser.parse_args()
    words = arguments.selectors.split(",")
    rows = [(Selector(word), granularity) for word in words for granularity in Granularity]
    timed, peaks = [], []
    for row in rows:
        cases = steps(*row)
        timed.append(measure(cases, CPU, ["none", *DENSE], budget=arguments.budget))
        peaks.append([number(peak_mib(step, CPU), 0) for step in list(cases.values())[:3]])
    columns = [
        Column("selector", [str(selector) for selector, _ in rows], left=True),
        Column("granularity", [str(granularity) for _, granularity in rows], left=True),
        Column("dense, × none", [times(each, "dense", "none") for each in timed]),
        Column("maldrop, × none", [times(each, "maldrop", "none") for each in timed]),
        *(Column(f"maldrop, × {name}", [times(each, "maldrop", name) for each in timed]) for name in DENSE),
        Column("peak MiB: none, maldrop, dense", [", ".join(peak) for peak in peaks]),
    ]
    machine = describe_machine(environment(torch.device("cpu")))
    print(to_text([Table(f"Training steps, medians and 95 % intervals; {machine}", columns)], "markdown"))


def times(measured: list[Samples], one: str, other: str) -> str:
    seconds = {samples.name: samples.seconds for samples in measured}
    return with_interval(*ratio_interval(seconds[one], seconds[other]))


if __name__ == "__main__":
    main()
