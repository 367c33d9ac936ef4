# SPDX-License-Identifier: Apache-2.0
"""The training loop: CPU, one GPU or several (DDP), bf16, weight averaging, checkpoints, a log to validate on."""

from __future__ import annotations

import logging
import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.encoder import load_backbone
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.surface import SurfaceNetwork
from pixel4d_ros.training.batch import Batch, halved, rescaled
from pixel4d_ros.training.config import PARTS, TrainingConfig, TrainingSource
from pixel4d_ros.training.losses import motion_loss, movable_loss, reference_loss, structure_loss, total_loss
from pixel4d_ros.training.panels import Board
from pixel4d_ros.training.processes import StopRequest, Team, join_processes
from pixel4d_ros.training.rendering import disturbed, in_metres, predict_maps, predict_views
from pixel4d_ros.training.resume import RunState, load_state, save_state
from pixel4d_ros.training.sources import TrainingData
from pixel4d_ros.training.taught_flow import flow_loss
from pixel4d_ros.training.validation import validate

WIDE, TALL = (832, 256), (512, 416)  # crops for roads and rooms: fixed shapes, about the same number of pixels
WARM_UP = 200  # steps
WIDE_UNTIL = 0.35  # share of the run over which the Gaussians narrow
REPORT_EVERY = 100  # steps
REFERENCE_SHARE = 0.5  # of the samples with a reference image, those that the surface branch sees with it
logger = logging.getLogger(__name__)
ON_CPU = "no GPU: of crops of the usual size each sample takes half a minute and 13 GB (--batch, --synthetic-batch)"


def train(
    config: TrainingConfig, logs: Sequence[Path] = (), resume: bool = False, make: Callable[[], Network] = Network
) -> Path:
    """Train on logs and the config's other sources, and return the path of the EMA weights.

    Under torchrun every process trains on its own GPU and its own samples, and gradients are averaged. resume continues
    from config.checkpoint. On Ctrl-C or SIGTERM, writes weights and checkpoint and raises KeyboardInterrupt. Logs its
    progress as INFO. make creates the network. Raises ValueError (WeightsError among them) or OSError for what cannot
    be read.
    """
    config = replace(config, sources=(*config.sources, *(TrainingSource(path) for path in logs)))
    with join_processes(config.device) as team, _repeatable(team.device):
        if team.device.type == "cpu" and team.rank == 0:
            logger.warning(ON_CPU)
        torch.manual_seed(config.seed + team.rank)
        torch.backends.cudnn.benchmark = True
        network = _initialized(make(), config).to(team.device).train()
        average = deepcopy(network).eval().requires_grad_(False)
        state = RunState(network, average, build_optimizer(network, config))
        if resume:
            load_state(state, config.checkpoint)
        data = TrainingData(config, team.rank, team.device, WIDE, TALL)
        board = Board(config.curves if team.rank == 0 else None, state.step)
        with StopRequest().listen() as stop:
            finished = _train(config, state, data, team, stop, board)
        board.close()
    if not finished:
        raise KeyboardInterrupt
    return config.out


def _train(
    config: TrainingConfig, state: RunState, data: TrainingData, team: Team, stop: StopRequest, board: Board
) -> bool:
    """Step until the end (True) or a request to stop; the first process reports, validates and saves."""
    trained = state.network.flow if data.taught_flow is not None else state.network
    parallel = DistributedDataParallel(trained) if team.world > 1 else trained
    peaks = [group["lr"] for group in state.optimizer.param_groups]
    clock = Clock(config, state)
    sums, reported = dict[str, Tensor](), state.step
    bar = tqdm(total=config.steps, initial=state.step, unit="step", mininterval=5, disable=team.rank > 0)
    while True:
        progress, stopping = team.agree(clock.progress(state.step), stop.signal is not None)
        if progress >= 1 or stopping:
            break
        _seed(config, team.rank, state.step)
        for group, peak in zip(state.optimizer.param_groups, peaks):
            group["lr"] = peak * _rate(config, progress) * min(1, (state.step + 1) / WARM_UP)
        if data.taught_flow is not None:
            loss, parts = flow_loss(parallel, data.taught_flow.pairs(data.batch, state.step))
        else:
            batch = data.batch(state.step)
            board.remember(batch)
            coarse = halved(batch)
            factors = in_metres(state.network, coarse)
            coarse = rescaled(coarse, factors)
            half = np.random.default_rng((config.seed, state.step)).random() < config.half_share
            batch = coarse if half else rescaled(batch, factors)
            loss, parts = batch_loss(parallel, batch, coarse, config, progress)
        parts |= optimizer_step(loss, parallel, state.optimizer)
        # The average forgets its start quickly, unless that start is a trained network.
        decay = config.ema if config.weights else min(config.ema, 1 - 10 / (state.step + 11))
        _average(state.average, state.network, decay)
        sums = {k: sums[k] + v if k in sums else v for k, v in parts.items()}
        state.step += 1
        bar.update()
        if state.step % REPORT_EVERY == 0:
            means = {k: float(v) / (state.step - reported) for k, v in sums.items()}
            line = " ".join(f"{k} {v:.4f}" for k, v in means.items())
            logger.info("step %d %.0fs %s", state.step, clock.seconds(), line)
            rates = {"rate": state.optimizer.param_groups[-1]["lr"], "steps_per_second": clock.rate(state.step)}
            board.scalars({**means, **rates}, state.step)
            sums, reported = {}, state.step
        if team.rank == 0:
            _look_and_save(config, state, clock, team, board)
    bar.close()
    if team.rank == 0:
        _finish(config, state, clock, team, finished=progress >= 1)
    return progress >= 1


class Clock:
    """Time of a run, over all its starts."""

    def __init__(self, config: TrainingConfig, state: RunState) -> None:
        self.config, self.started, self.first_step = config, time.monotonic(), state.step
        self.before, self.saved = state.seconds, self.started

    def seconds(self) -> float:
        """Time spent on the run so far, earlier starts included."""
        return self.before + time.monotonic() - self.started

    def progress(self, step: int) -> float:
        """Share of the run that is over, from 0 to 1, by steps or by time."""
        spent = self.seconds() / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(step / self.config.steps, spent)

    def rate(self, step: int) -> float:
        """Steps per second since this start."""
        return (step - self.first_step) / max(time.monotonic() - self.started, 1e-9)

    def save_due(self) -> bool:
        """Whether save_minutes passed since this last returned True."""
        due = time.monotonic() - self.saved >= 60 * self.config.save_minutes
        self.saved = time.monotonic() if due else self.saved
        return due


def _look_and_save(config: TrainingConfig, state: RunState, clock: Clock, team: Team, board: Board) -> None:
    """Panels, validation and checkpoints, each when it is due."""
    if config.panel_every and state.step % config.panel_every == 0:
        board.panels(state.average, state.step)
    if config.validate and state.step % (10 * REPORT_EVERY) == 0:
        line = validate(state.average, config.validate, team.device)
        logger.info("step %d %s", state.step, line)
        board.text("validation", line, state.step)
    if clock.save_due():
        _save(config, state, clock, team)


def _save(config: TrainingConfig, state: RunState, clock: Clock, team: Team) -> None:
    """Write the EMA weights and the checkpoint."""
    save_state(state, config, clock.seconds())
    save_weights(state.average, config.out, {"steps": str(state.step), "processes": str(team.world)})


def _finish(config: TrainingConfig, state: RunState, clock: Clock, team: Team, finished: bool) -> None:
    """Save, log what the run cost, and validate unless the run was interrupted."""
    rate, kind = clock.rate(state.step), team.device.type
    _save(config, state, clock, team)
    if kind == "cuda":
        memory = torch.cuda.max_memory_allocated(team.device) / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    minutes = f"{clock.seconds() * team.world / 60:.1f} {'GPU' if kind == 'cuda' else 'CPU'} minutes"
    logger.info(
        "%d steps, %.1f a second, %d x %s, %s, at most %.1f GiB each: %s",
        state.step, rate, team.world, kind, minutes, memory, config.out,
    )  # fmt: skip
    if not finished:
        logger.info("stopped at step %d: continue with --resume --out %s", state.step, config.out)
    elif config.validate:
        logger.info("final %s", validate(state.average, config.validate, team.device))


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On the CPU, sums whose order does not depend on threads. On GPUs there is none for all that rendering does."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _seed(config: TrainingConfig, rank: int, step: int) -> None:
    """Random numbers of each step depend on nothing before it, so a run that is resumed needs no state of them."""
    sequence = np.random.SeedSequence((config.seed, rank, step))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _initialized(network: Network, config: TrainingConfig) -> Network:
    if config.weights is not None:
        load_weights(network, config.weights)
    parts: dict[str, tuple[Network | SurfaceNetwork, ...]] = {"surface": (network.surface,)}
    parts |= dict.fromkeys(("depth", "static"), (network,))
    for part in parts.get(config.only, (network, network.surface)):
        if config.backbone is not None:
            part.encoder.load_imagenet(load_backbone(str(config.backbone)))
        part.encoder.drop_residuals(config.drop_path)
    return network


def build_optimizer(network: Network, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with a rate of its own for the encoders; config.only freezes the other parameters.

    Without it the movable decoder stays as it is: most sources do not tell what stands, but could move. So does the
    flow network, which learns from its teacher alone.
    """
    network.movable.requires_grad_(False)
    network.flow.requires_grad_(False)
    if config.only:
        network.requires_grad_(False)
        for name in PARTS[config.only]:
            network.get_submodule(name).requires_grad_(True)
    if config.encoder_rate == 0:
        network.encoder.requires_grad_(False)
        network.surface.encoder.requires_grad_(False)
    encoder = [p for e in (network.encoder, network.surface.encoder) for p in e.parameters() if p.requires_grad]
    known = {id(p) for p in encoder}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": encoder, "lr": config.rate * config.encoder_rate}, {"params": rest, "lr": config.rate}]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True)


def _rate(config: TrainingConfig, progress: float) -> float:
    """Cosine from rate_from to rate_to."""
    return config.rate_to + (config.rate_from - config.rate_to) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def surface_shares(count: int, device: torch.device) -> Tensor:
    """Shares (count, 1, 1, 1) of the large structure that is the surface branch's: 1 in half of the samples.

    Alone it is trained as a network of an ensemble is; with others the surface is trained as it will be used.
    """
    return torch.rand(count, 1, 1, 1, device=device).add(0.5).clamp(max=1)


def batch_loss(
    network: nn.Module, batch: Batch, coarse: Batch, config: TrainingConfig, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss on a batch, and on the same at half the resolution, and its parts.

    progress is the share of the run that is over.
    """
    if config.only == "motion":
        loss, parts = motion_loss(predict_maps(network, batch, coarse), coarse)
    elif config.only == "depth":
        loss, parts = structure_loss(predict_maps(network, batch, coarse), coarse, config.matched_weight)
    elif config.only == "sweep":
        prediction = predict_views(network, batch, coarse, 1.0, None, 1.0, disturbed)
        loss, parts = reference_loss(prediction, batch, config.matched_weight)
    elif config.only == "movable":
        loss, parts = movable_loss(predict_maps(network, batch, coarse), batch)
    else:
        widen = 1 + (config.widen - 1) * max(0.0, 1 - progress / WIDE_UNTIL)
        surface = config.only == "surface"
        use_prior = None if surface else torch.rand(len(batch.images), device=batch.images.device) < 0.5
        share = 0.0 if config.only == "static" else REFERENCE_SHARE
        own = surface_shares(len(batch.images), batch.images.device) if surface else None
        prediction = predict_views(network, batch, coarse, widen, use_prior, share, surface_share=own)
        weights = config.depth_weight, config.matched_weight
        loss, parts = total_loss(prediction, batch, coarse, *weights, progress, surface)
    return loss, parts


def optimizer_step(loss: Tensor, network: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """One step down the loss, unless its gradient is not finite: the gradient's norm, and whether it was skipped."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    skipped = (~torch.isfinite(norm)).float()
    # Mixed precision's way (torch.amp.GradScaler) to have the device skip a step: `if` would wait for it.
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    optimizer.step()
    return {"gradient": norm.nan_to_num(0, 0, 0), "skipped": skipped}


@torch.no_grad()
def _average(average: Network, network: Network, decay: float) -> None:
    pairs = [(a, p) for a, p in zip(average.parameters(), network.parameters())]
    old: list[Tensor] = [a for a, _ in pairs]
    torch._foreach_lerp_(old, [p.detach() for _, p in pairs], 1 - decay)
