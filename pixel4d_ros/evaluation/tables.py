# SPDX-License-Identifier: Apache-2.0
"""An evaluation as text: aligned columns for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pixel4d_ros.evaluation.intervals import Interval, known
from pixel4d_ros.evaluation.protocol import ALIGNMENTS
from pixel4d_ros.evaluation.results import Evaluation, Method, MotionResults, Step, Subject
from pixel4d_ros.evaluation.summary import FORECAST, PLANE, REPEAT, STILL

Row = Sequence[str]
Table = tuple[Row, Sequence[Row]]  # header, rows


def table(header: Row, rows: Sequence[Row], markdown: bool = False) -> str:
    """Rows of cells under a header; the first column is left-aligned, numbers right-aligned."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Row) -> str:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    dashes = ["-" * widths[0], *("-" * (w - 1) + (":" if markdown else "-") for w in widths[1:])]
    return "\n".join([line(header), line(dashes), *map(line, rows)])


def counted(number: int, what: str) -> str:
    """1 frame, 2 frames."""
    return f"{number} {what}{'s' * (number != 1)}"


def headline(evaluation: Evaluation) -> str:
    """One line above every table: data, protocol and camera alignment."""
    e, s = evaluation, evaluation.subject
    return (
        f"{s.log}: {counted(e.sources, 'source image')}, {counted(e.frames, 'frame')} each, "
        f"{s.size[0]}x{s.size[1]}; {e.protocol.describe()}; {ALIGNMENTS[s.align]}; "
        f"{weights_line(s)}, {s.device}"
    )


def weights_line(subject: Subject) -> str:
    """Which network, and which version of the package."""
    return f"weights {subject.weights[:12]}, pixel4d_ros {subject.package_version}"


def describe(evaluation: Evaluation, markdown: bool = False, brief: bool = False) -> str:
    """The whole evaluation: headline, means by method, depth, motion, time; unless brief, frame by frame."""
    head = headline(evaluation)
    blocks = [f"### {head}" if markdown else head]
    tables = [methods_table(evaluation)] if evaluation.methods else []
    tables.append(measures_table(evaluation))
    tables += [steps_table(evaluation)] if evaluation.methods and not brief else []
    blocks += [table(header, rows, markdown) for header, rows in tables]
    blocks += [f"Note: {note}" for note in evaluation.subject.notes]
    t = evaluation.timing_ms
    blocks.append(f"One forecast takes {t.median:.0f} ms (median; worst {t.worst:.0f} ms, the first {t.first:.0f} ms).")
    return "\n\n".join(blocks)


def methods_table(evaluation: Evaluation) -> Table:
    """The forecast and the baselines, a row each: means over the frames after frame 0."""
    methods = evaluation.methods
    columns: list[tuple[str, int, bool]] = [("PSNR", 2, True), ("SSIM", 3, True)]
    columns += [("inside", 2, _any(methods, "inside")), ("outside", 2, _any(methods, "outside"))]
    columns += [("LPIPS", 3, _any(methods, "lpips")), ("FLIP", 3, _any(methods, "flip"))]
    columns += [("FVD", 1, _any(methods, "fvd"))]
    shown = [(name, digits) for name, digits, there in columns if there]
    rows = [[name, *(_cell(getattr(m, c.lower()), digits) for c, digits in shown)] for name, m in methods.items()]
    units = {"PSNR": "PSNR, dB", "inside": "inside movers, dB", "outside": "outside, dB"}
    header = [f"mean of +1..+{evaluation.frames - 1}", *(units.get(name, name) for name, _ in shown)]
    return header, rows


def _any(methods: dict[str, Method], name: str) -> bool:
    return any(getattr(method, name) is not None for method in methods.values())


def _cell(value: Interval | float | None, digits: int) -> str:
    number = value.mean if isinstance(value, Interval) else value
    return "" if number is None else f"{number:.{digits}f}"


def steps_table(evaluation: Evaluation) -> Table:
    """One row per frame of the horizon: forecast and baselines."""
    last = evaluation.steps[-1]
    baselines = [name for name in (STILL, PLANE, REPEAT) if name in last.psnr]
    best = [name for name in last.psnr if name.startswith("best")]
    inside = any(step.inside for step in evaluation.steps)
    header = ["time", "PSNR", *best, *baselines, "gain", "SSIM", REPEAT]
    header += ["inside", *(f"{name}, inside" for name in best), "motion off, inside"] if inside else []
    rows = [_step_row(step, best, baselines, inside) for step in evaluation.steps]
    return header, rows


def _step_row(step: Step, best: Sequence[str], baselines: Sequence[str], inside: bool) -> Row:
    row = [f"+{step.time:.2f} s", f"{step.psnr[FORECAST]:.2f}", *(f"{step.psnr[name]:.2f}" for name in best)]
    if step.step == 0:  # all baselines show the source image itself
        row += [""] * (len(baselines) + 1) + [f"{step.ssim[FORECAST]:.3f}", ""]
    else:
        row += [f"{step.psnr[name]:.2f}" for name in baselines]
        row += [f"{step.psnr[FORECAST] - step.psnr[REPEAT]:+.2f}"]
        row += [f"{step.ssim[FORECAST]:.3f}", f"{step.ssim[REPEAT]:.3f}"]
    if inside:
        row += [_cell(step.inside.get(name), 2) for name in (FORECAST, *best, STILL)]
    return row


def measures_table(evaluation: Evaluation) -> Table:
    """Gains, depth, shape and motion with their confidence intervals."""
    e = evaluation
    rows: list[Row] = []
    _add(rows, "PSNR of frame 0, dB", e.frame0_psnr, 2)
    _add(rows, "gain over repeating the image, dB", e.gain, 2)
    _add(rows, "gain in SSIM", e.ssim_gain, 3)
    _add(rows, "inside moving objects: gain over motion off, dB", e.inside_gain, 2)
    _add(rows, f"inside moving objects: best of {e.protocol.samples} over sample 0, dB", e.best_inside_gain, 2)
    if e.motion is not None:
        _add_motion(rows, e.motion)
    _add(rows, "scale of the camera path", e.scale, 3)
    if e.depth is not None:
        d = e.depth
        _add(rows, "depth AbsRel", d.abs_rel, 3)
        _add(rows, "depth delta1", d.delta1, 3)
        _add(rows, "depth AbsRel beside depth edges", d.edge_abs_rel, 3)
        _add(rows, "depth delta1 beside depth edges", d.edge_delta1, 3)
        _add(rows, "depth AbsRel, median scaled", d.scaled_abs_rel, 3)
        _add(rows, "depth delta1, median scaled", d.scaled_delta1, 3)
        _add(rows, "depth delta1 beside depth edges, median scaled", d.scaled_edge_delta1, 3)
        _add(rows, "boundary F1", d.boundary_f1, 3)
        _add(rows, "boundary precision", d.boundary_precision, 3)
        _add(rows, "boundary recall", d.boundary_recall, 3)
    if e.shape is not None:
        _add(rows, f"Gaussians of {e.shape.objects} labelled vehicles inside their boxes, %", e.shape.gaussians, 1, 100)
        _add(rows, "the sensor's points inside these boxes, %", e.shape.sensor, 1, 100)
    return ["mean over source images", "value", "95 % interval"], rows


def _add_motion(rows: list[Row], motion: MotionResults) -> None:
    _add(rows, f"moving pixels: IoU ({motion.sources} images)", motion.mask_iou, 2)
    _add(rows, "static pixels called moving, %", motion.false_moving, 2, 100)
    _add(rows, "false moving objects per image", motion.false_objects, 2)
    _add(rows, "boxes longer than 25 m or floating, per image", motion.impossible_boxes, 2)
    if motion.objects:
        rows.append(["moving objects found, %", f"{100 * motion.found / motion.objects:.0f}", f"of {motion.objects}"])
    _add(rows, f"velocity error, median of {motion.objects} objects, %", motion.velocity_error, 0, 100)
    _add(rows, f"velocity error, median of the {motion.found} found, %", motion.found_velocity_error, 0, 100)
    if motion.brier is not None:
        events = sum(b.count for b in motion.reliability)
        rows.append(["Brier score of the probability of moving", f"{motion.brier:.3f}", f"{events} objects"])


def _add(rows: list[Row], name: str, value: Interval | None, digits: int, factor: float = 1) -> None:
    """Append a row, unless the value is None."""
    if value is not None:
        rows.append(_row(name, value, digits, factor))


def _row(name: str, value: Interval, digits: int, factor: float = 1) -> Row:
    interval = ""
    if value.low is not None and value.high is not None:
        interval = f"{factor * value.low:.{digits}f} .. {factor * value.high:.{digits}f}"
    return [name, f"{factor * value.mean:.{digits}f}", interval]


def overview(evaluations: Sequence[Evaluation], markdown: bool = False, notes: Sequence[str] = ()) -> str:
    """A headline, then a row per clip and their mean."""
    head = overview_headline(evaluations)
    blocks = [f"### {head}" if markdown else head, table(*overview_table(evaluations), markdown)]
    return "\n\n".join([*blocks, *(f"Note: {note}" for note in notes)])


def overview_headline(evaluations: Sequence[Evaluation]) -> str:
    """One line: data, protocol and camera alignment."""
    alignments = sorted({ALIGNMENTS[e.subject.align] for e in evaluations})
    first = evaluations[0]
    return (
        f"{len(evaluations)} clips, {sum(e.sources for e in evaluations)} source images; {first.protocol.describe()}; "
        f"{', '.join(alignments)}; {weights_line(first.subject)}"
    )


def overview_table(evaluations: Sequence[Evaluation]) -> Table:
    """A row per clip, and their mean with a bootstrap interval over clips; each clip counts alike."""
    columns = list(zip(*(_overview_row(e) for e in evaluations)))
    shown = [i for i, column in enumerate(columns) if any(value is not None for value in column)]
    header = ["clip", *(OVERVIEW[i][0] for i in shown)]
    rows: list[Row] = []
    for k, evaluation in enumerate(evaluations):
        rows.append([evaluation.subject.log, *(_cell(columns[i][k], OVERVIEW[i][1]) for i in shown)])
    seed = evaluations[0].protocol.seed
    # A mean over some of the clips would stand beside means over all and compare with nothing.
    means = [known(columns[i], seed) if i and None not in columns[i] else None for i in shown]
    rows.append(["mean over clips", *(_cell(mean, OVERVIEW[i][1]) for i, mean in zip(shown, means))])
    if len(evaluations) > 1:
        ends = [["", ""] if m is None else _row("", m, OVERVIEW[i][1])[1:] for i, m in zip(shown, means)]
        rows.append(["95 % interval", *(interval for _, interval in ends)])
    return header, rows


OVERVIEW: tuple[tuple[str, int], ...] = (  # columns and their digits
    ("sources", 0),
    ("frame 0, dB", 2),
    ("PSNR, dB", 2),
    (STILL, 2),
    (PLANE, 2),
    ("repeated", 2),
    ("gain, dB", 2),
    ("SSIM", 3),
    ("LPIPS", 3),
    ("inside, dB", 2),
    ("gain inside", 2),
    ("AbsRel", 3),
    ("scaled", 3),
    ("boundary F1", 3),
    ("in boxes", 2),
    ("IoU", 2),
    ("velocity error", 2),
)


def _overview_row(e: Evaluation) -> tuple[float | None, ...]:
    def mean(value: Interval | None) -> float | None:
        return None if value is None else value.mean

    def of(name: str, measure: str) -> float | None:
        return mean(getattr(e.methods[name], measure)) if name in e.methods else None

    return (
        e.sources,
        e.frame0_psnr.mean,
        of(FORECAST, "psnr"),
        of(STILL, "psnr"),
        of(PLANE, "psnr"),
        of(REPEAT, "psnr"),
        mean(e.gain),
        of(FORECAST, "ssim"),
        of(FORECAST, "lpips"),
        of(FORECAST, "inside"),
        mean(e.inside_gain),
        None if e.depth is None else e.depth.abs_rel.mean,
        None if e.depth is None else e.depth.scaled_abs_rel.mean,
        None if e.depth is None else mean(e.depth.boundary_f1),
        None if e.shape is None else e.shape.gaussians.mean,
        None if e.motion is None else mean(e.motion.mask_iou),
        None if e.motion is None else mean(e.motion.velocity_error),
    )
