"""The dropout variants for a network of one's own."""

import torch
from torch import nn

from maldrop_cli import config, names
from maldrop_cli.dropout.selectors import check_rho
from maldrop_cli.models import Classifier, to_dropout_linear
from maldrop_cli.models.strip_head import Example, find_end, strip_head
from maldrop_cli.models.variants import Head, build_regulariser, check_variant


def attach(
    network: nn.Module,
    *,
    dropout: str = "maldrop",
    rho: int | str | None = None,
    p: float = 0.5,
    omega: float | str | None = None,
    selector: str = "heuristic",
    granularity: str = "batch",
    channels: int | None = None,
    pass_rate: str = "cumulative",
    joint_iterations: int = config.RunConfig.joint_iterations,
    joint_starts: int = config.RunConfig.joint_starts,
    score_memory: float = config.RunConfig.score_memory,
    generator: torch.Generator | None = None,
    example: Example | None = None,
) -> Classifier:
    """Put a dropout variant before the last Linear of ``network``. Returns a classifier with
    ``forward(images, labels=None, ...) -> logits_NC``, which in training mode needs the labels for ``maldrop``, as an
    argument or by :func:`maldrop_cli.labels`. Further arguments are passed on to the network.

    **The network is changed in place**: its last ``nn.Linear``, and the ``nn.Dropout`` that feeds it directly, become
    ``nn.Identity``, so that it maps images to hidden_ND. The Linear's parameters move to ``classifier.head``: train,
    move, save and load the classifier, which takes the network's own state dict, from before, as well. Device, dtype,
    ``requires_grad``, mode, other Dropouts and ``F.dropout`` stay. ``classifier.detach()`` gives a plain network. For
    ``torch.jit.script``, ``torch.func`` and ``quantize_dynamic`` see docs/variants.md, "Limits".

    Args:
        network: its output must be that of its last Linear, unchanged, and the Linear's input hidden_ND. It may be
            compiled, but not its last Linear by itself; better, compile the classifier.
        dropout: a name as in ``maldrop train --dropout``.
        rho: neurons to drop, 0 to D, or channels or weights where the variant drops those; or a percentage of them as
            text, at least 1 if above 0; None is ``"6.25%"``. ``classifier.head.regulariser.rho`` may be set anew before
            any batch; for a schedule see docs/variants.md, "In Python".
        p: the rate of ``vanilla``, ``spatial``, ``dropconnect`` and ``nested``.
        omega, selector, granularity, generator: as in :func:`maldrop_cli.dropout.keep_mask`.
        channels: how many channels the D neurons make up, for the spatial variants.
        pass_rate: what scales at test time, see :class:`maldrop_cli.dropout.CountedDropout`; for ``epoch``, call
            ``classifier.head.regulariser.begin_epoch()`` before each.
        joint_iterations, joint_starts: of the selector ``joint``: rounds of ascent at most, and starts beside softmax.
        score_memory: MiB that the selector ``single`` may work in.
        example: images, or all that the network takes, as a tuple or by name as a dict. A forward pass of them, in
            evaluation mode, finds the last Linear and its Dropout. Without them these are the ones registered last,
            which the first forward passes of the classifier verify.

    Raises:
        ValueError: a wrong setting, or a network that doesn't end in a Linear, which is then left as it was. Without
            ``example`` some are found only on a forward pass.
        TypeError: rho neither a whole number nor text.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))
        >>> classifier = attach(network, rho=4)
        >>> logits_NC = classifier(torch.rand(8, 1, 8, 8), torch.arange(8))
    """
    end, linear = find_end(network, example)
    size = Head(linear.in_features, linear.out_features, channels)
    try:
        variant = names.parse_name(names.Dropout, dropout, "dropout")
        if channels is None and variant in names.SPATIAL:
            raise ValueError(f"dropout: {variant} drops channels, and needs to know their number, channels=...")
        if channels is not None and (channels < 1 or size.width % channels):
            raise ValueError(f"channels: {size.width} neurons can't be divided into {channels}")
        named = config.RunConfig(dropout=variant)
        count = check_rho("6.25%" if rho is None else rho, size.units(named.unit), named.unit) if named.has_rho else 0
        settings = config.RunConfig(
            dropout=variant,
            rho=count,
            p=p,
            omega=names.parse_omega("paper" if omega is None else str(omega)),
            selector=names.parse_name(names.Selector, selector, "selector"),
            granularity=names.parse_name(names.Granularity, granularity, "granularity"),
            pass_rate=names.parse_name(names.PassRate, pass_rate, "pass_rate"),
            joint_iterations=joint_iterations,
            joint_starts=joint_starts,
            score_memory=score_memory,
        )
        check_variant(settings, size)
        regulariser = build_regulariser(settings, size, generator)
    except names.UsageError as error:
        raise ValueError(str(error)) from None
    classifier = Classifier(strip_head(network, end, example), to_dropout_linear(linear, regulariser))
    classifier.training = network.training
    return classifier
