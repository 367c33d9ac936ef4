# SPDX-License-Identifier: Apache-2.0
"""Training runs: they repeat, stop and go on, run in several processes, and draw their curves."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.paths import REPOSITORY
from support.small_training import small_training

from pixel4d_ros import cli
from pixel4d_ros.errors import WeightsError
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.synthetic import write_street_log
from pixel4d_ros.training import loop, resume, sources
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.config import TrainingConfig, TrainingSource
from pixel4d_ros.training.config_file import parse_fields, plain_values
from pixel4d_ros.training.panels import Board
from pixel4d_ros.training.sources import TrainingData

SIZE = (32, 32)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "street.mcap"
    write_street_log(path, frames=6, size=(96, 48), progress=False)
    return path


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Little to compute, in one thread: several add up in no fixed order, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with small_training(SIZE), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "RENEW_EVERY", 2)  # so that the pool changes within a few steps
        yield
    torch.set_num_threads(threads)


def tiny_config(out: Path, log: Path, steps: int = 3) -> TrainingConfig:
    return TrainingConfig(
        sources=(TrainingSource(log),),
        out=out / "weights.safetensors",
        steps=steps,
        batch=1,
        synthetic_batch=1,
        synthetic_pool=2,
        targets=1,
        save_minutes=100,
        panel_every=0,
        device="cpu",
    )


def test_options_win_over_the_config_file(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(plain_values(tiny_config(tmp_path / "unused", log, steps=50))))
    out = tmp_path / "w.safetensors"
    assert cli.main(["train", "--config", str(path), "--steps", "1", "--batch", "0", "--out", str(out)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "no GPU" in caplog.text
    assert last.startswith("1 steps, ") and "1 x cpu" in last and "CPU minutes" in last and "GiB" in last
    assert not (tmp_path / "unused").exists()
    assert resume.read_settings(out.with_suffix(".resume.safetensors"))["steps"] == 1


def test_processes_draw_different_samples_and_each_step_its_own(log: Path) -> None:
    config, cpu = replace(tiny_config(Path(), log), synthetic_batch=0), torch.device("cpu")
    first, second = (TrainingData(config, rank, cpu, SIZE, SIZE) for rank in (0, 1))
    assert not torch.equal(first.batch(0).images, second.batch(0).images)
    third = first.batch(3).images
    assert not torch.equal(third, first.batch(4).images)
    assert torch.equal(third, first.batch(3).images)


def test_processes_draw_different_worlds(log: Path) -> None:
    config, cpu = replace(tiny_config(Path(), log), batch=0), torch.device("cpu")
    first, second = (TrainingData(config, rank, cpu, SIZE, SIZE).batch(0).images for rank in (0, 1))
    assert not torch.equal(first, second)


# Stopping and going on


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, kind: signal.Signals) -> None:
    """Send this process a signal in the middle of the step of this number."""
    batch = TrainingData.batch

    def batch_and_signal(data: TrainingData, step: int) -> Batch:
        if step == steps - 1:
            os.kill(os.getpid(), kind)
        return batch(data, step)

    monkeypatch.setattr(TrainingData, "batch", batch_and_signal)


@dataclass(frozen=True)
class Run:
    """A run that was not stopped, and the steps at which it saved."""

    config: TrainingConfig
    saved: list[int]

    @property
    def end(self) -> dict[str, torch.Tensor]:
        """Its checkpoint: network, average and optimizer."""
        return load_file(self.config.checkpoint)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Run:
    """Three steps, each of which is saved."""
    run = Run(replace(tiny_config(tmp_path_factory.mktemp("unbroken"), log), save_minutes=0), [])
    save = resume.save_state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_state", lambda state, *rest: (save(state, *rest), run.saved.append(state.step)))
        loop.train(run.config)
    return run


@pytest.mark.slow
def test_a_run_that_is_stopped_twice_ends_bit_for_bit_where_an_unbroken_one_does(
    tmp_path: Path, log: Path, unbroken: Run, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tiny_config(tmp_path / "broken", log)
    caplog.set_level(logging.INFO)
    handlers = [signal.getsignal(k) for k in (signal.SIGINT, signal.SIGTERM)]
    for step, kind in ((1, signal.SIGTERM), (2, signal.SIGINT)):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, step, kind)
            with pytest.raises(KeyboardInterrupt):
                loop.train(broken, resume=step > 1)
        assert [signal.getsignal(k) for k in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert f"stopped at step {step}" in caplog.text
        Forecaster.load(broken.out, device="cpu")  # the EMA weights of a run that was stopped
    half = load_file(broken.checkpoint)
    assert cli.main(["train", "--resume", "--out", str(broken.out)]) == 0
    end, expected = load_file(broken.checkpoint), unbroken.end
    assert end.keys() == expected.keys() and any(name.startswith("optimizer/") for name in end)
    different = [name for name in end if not torch.equal(end[name], expected[name])]
    assert not different
    assert any(not torch.equal(half[name], end[name]) for name in half)


@pytest.mark.slow
def test_another_seed_gives_other_weights(tmp_path: Path, log: Path, unbroken: Run) -> None:
    """That equal seeds give equal weights shows above: two runs of one seed agree in every bit."""
    config = replace(tiny_config(tmp_path, log), seed=unbroken.config.seed + 1)
    other, weights = load_file(loop.train(config)), load_file(unbroken.config.out)
    assert other.keys() == weights.keys()
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def test_checkpoints_are_written_on_the_way(unbroken: Run) -> None:
    config = unbroken.config
    assert unbroken.saved == [1, 2, 3, 3]
    names = sorted(p.name for p in config.out.parent.glob("*.*"))
    assert names == ["weights.resume.safetensors", "weights.safetensors"]
    with safe_open(str(config.checkpoint), "pt") as file:
        metadata = file.metadata()
    assert metadata["step"] == "3" and float(metadata["seconds"]) > 0
    assert TrainingConfig(**parse_fields(json.loads(metadata["config"]), "", Path())) == config


def test_a_time_limit_ends_the_run(tmp_path: Path, log: Path) -> None:
    config = replace(tiny_config(tmp_path, log, steps=10_000), batch=0, minutes=0.001)
    assert loop.train(config).is_file()
    with safe_open(str(config.checkpoint), "pt") as file:
        assert 1 <= int(file.metadata()["step"]) < 100


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    assert cli.main(["train", "--resume", "--out", str(out)]) == 1
    assert "there is no checkpoint" in capsys.readouterr().err
    checkpoint = TrainingConfig(out=out).checkpoint
    checkpoint.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="damaged"):
        resume.read_settings(checkpoint)
    save_file({"network/x": torch.zeros(1)}, str(checkpoint))
    with pytest.raises(WeightsError, match="no checkpoint of this version"):
        resume.read_settings(checkpoint)
    metadata = {"format": resume.FORMAT, "config": "{}", "step": "1", "seconds": "1"}
    save_file({"network/x": torch.zeros(1)}, str(checkpoint), metadata)
    network = Network()
    state = resume.RunState(network, network, loop.build_optimizer(network, TrainingConfig()))
    with pytest.raises(WeightsError, match="belongs to another network"):
        resume.load_state(state, checkpoint)


# Curves


def test_curves_and_pictures_of_a_run(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(place, reason="needs tensorboard, of the extra train")
    monkeypatch.setattr(loop, "REPORT_EVERY", 2)
    config = replace(tiny_config(tmp_path, log, steps=2), panel_every=2)
    loop.train(config)
    assert config.curves == tmp_path / "tensorboard" / "weights"
    events = accumulator.EventAccumulator(str(config.curves))
    events.Reload()
    assert {"color", "depth", "gradient", "skipped", "rate", "steps_per_second"} <= set(events.Tags()["scalars"])
    (point,) = events.Scalars("gradient")
    assert point.step == 2 and point.value > 0
    assert set(events.Tags()["images"]) == {"32x32/0", "32x32/1"}
    (image,) = events.Images("32x32/0")
    assert (image.width, image.height) == (4 * 32, 3 * 32)


def test_without_tensorboard_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = Board(tmp_path / "curves")
    board.scalars({"color": 1.0}, 1)
    board.close()
    assert caplog.text.count("TensorBoard is not installed") == 1
    assert not (tmp_path / "curves").exists()


# Several processes

LAUNCHER = """
import logging, os, signal, sys
from pathlib import Path
import torch
import torch._inductor  # torch imports it for deterministic algorithms: once, before the forks
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from pixel4d_ros.training import loop, validation
from pixel4d_ros.training.config import TrainingConfig, TrainingSource
from pixel4d_ros.training.sources import TrainingData

def work(log, out, resume):
    rank = int(os.environ["RANK"])
    loop.WIDE, loop.WARM_UP = (32, 32), 1
    torch.set_num_threads(1)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    batch, seen = TrainingData.batch, {}

    def watched(data, step):
        made = batch(data, step)
        seen[f"images{step}"] = made.images.clone()
        if rank == 1 and step == 1:
            os.kill(os.getpid(), signal.SIGTERM)  # only one of the two is asked to stop
        return made

    TrainingData.batch = watched
    networks, build = [], loop.build_optimizer
    loop.build_optimizer = lambda network, config: networks.append(network) or build(network, config)
    config = TrainingConfig(
        sources=(TrainingSource(log),), out=out / "weights.safetensors", steps=3 if resume else 40, batch=1,
        synthetic_batch=0, targets=1, panel_every=1, device="cpu",
    )
    try:
        loop.train(config, resume=resume)
    except KeyboardInterrupt:
        seen["stopped"] = torch.ones(1)
    parameters = torch.nn.utils.parameters_to_vector(networks[-1].parameters()).detach()
    torch.save({**seen, "parameters": parameters}, out / f"rank{rank}{resume}.pt")
    sys.stdout.flush()

# As `torchrun --standalone --nproc_per_node 2`, but torch is imported once: it takes four seconds of CPU time.
launch = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, start_method="fork")
for resume in (False, True):
    elastic_launch(launch, work)(Path(sys.argv[1]), Path(sys.argv[2]), resume)
    print("ended", flush=True)
"""


def _train_in_two_processes(log: Path, out: Path) -> tuple[str, str]:
    """Run LAUNCHER: what is printed by the run that is stopped, and by the one that goes on."""
    script = out / "launcher.py"
    script.write_text(LAUNCHER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, script, log, out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, _ = done.stdout.split("ended\n")
    return first, second


def _ranks(folder: Path, resumed: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What the two processes saved, after checking that they have the same network."""
    first, second = (torch.load(folder / f"rank{rank}{resumed}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys() and torch.equal(first["parameters"], second["parameters"])
    return first, second


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_processes_train_one_network_on_different_samples_and_stop_and_end_together(
    tmp_path: Path, log: Path
) -> None:
    stopped, resumed = _train_in_two_processes(log, tmp_path)
    assert "2 x cpu" in stopped and "stopped at step 2" in stopped
    first, second = _ranks(tmp_path, resumed=False)
    assert first.keys() == {"images0", "images1", "stopped", "parameters"}
    assert not torch.equal(first["images0"], second["images0"])
    assert not torch.equal(first["images0"], first["images1"])
    assert "\n3 steps, " in "\n" + resumed
    assert _ranks(tmp_path, resumed=True)[0].keys() == {"images2", "parameters"}
    Forecaster.load(tmp_path / "weights.safetensors", device="cpu")
