"""``python -m evsnn.convert`` and ``evsnn.convert(...)``: a trained ReLU network becomes a spiking one.

The command writes a weights file, the function returns a `Network`. Both names are one module, which can be
called: ``evsnn.convert(model, calibration, n_steps=32)`` is
`evsnn.conversion.conversion.convert`. docs/decisions/0007-a-module-that-is-called.md says why.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports below
    from .interrupts import end_quietly

    end_quietly()

import argparse
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import __version__, text
from .errors import EvsnnError, InputError, MissingExtraError
from .output import console

if TYPE_CHECKING:
    from .conversion.balance.calibration import CalibrationSet
    from .conversion.balance.options import Options
    from .conversion.conversion import Calibration, Conversion, Model
    from .conversion.report.validation import Validation
    from .network.network import Network

__all__ = ["main"]

N_SAMPLES = 16

_EPILOG = """\
a calibration file is .npz or .h5 with 'images' (and 'labels'), or .npy:
a few hundred inputs as the model reads them
with several T, the first is the network's own, and each has its own thresholds and biases in the file
nothing is written unless everything succeeded, --validate included
"""


class _Callable(ModuleType):
    """A module that is called as the function of its name."""

    def __call__(
        self,
        model: Model,
        calibration: Calibration | None = None,
        **options: Any,
    ) -> Network:
        """See `evsnn.conversion.conversion.convert`."""
        from .conversion.conversion import convert

        return convert(model, calibration, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """The options, for editors and `help`."""
        from .conversion.conversion import convert

        return inspect.signature(convert)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)


_PROCESS_BYTES = 50_000_000
"""What a conversion takes beside arrays: the engine with LLVM, BLAS, machine code and a report; measured."""


def parser(prog: str) -> console.Parser:
    """The command line."""
    p = console.Parser(
        prog=prog, description="Convert a trained ReLU network (ONNX) into a spiking one.", epilog=_EPILOG
    )
    p.add_argument("model", metavar="MODEL.onnx", help="the trained network: one input")
    p.add_argument("-o", "--output", metavar="WEIGHTS.h5", required=True, help="the file to write")
    data = p.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--calibration",
        metavar="F",
        help="inputs from which thresholds are made: .npz, .npy or .h5, in the model's own shape and scale",
    )
    data.add_argument(
        "--data-free", action="store_true", help="no inputs: thresholds from Clip limits and batch norms"
    )
    p.add_argument(
        "--input-range",
        metavar="LOW,HIGH",
        type=_range,
        help="smallest and largest input, for integers (default: of the calibration samples)",
    )
    p.add_argument(
        "--scores",
        metavar="NAME[,NAME2,...]",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        help="the tensors to read out, the scores first (default: all outputs)",
    )
    p.add_argument(
        "--task",
        choices=("classify", "regress", "none"),
        help="read the first output as scores of classes, as values, or not at all (default: classify with"
        " labels, else by its shape)",
    )
    p.add_argument(
        "--steps",
        metavar="T[,T2,...]",
        type=console.steps,
        help="number of time steps, or several to make the file for (default: 32, or 15 graded levels)",
    )
    p.add_argument(
        "--threshold",
        metavar="RULE",
        default="auto",
        help="auto, max (the paper's), percentile:p (99.9), mse or error:p (default: auto, which tries some)",
    )
    p.add_argument(
        "--granularity",
        choices=("layer", "channel"),
        help="one threshold per layer or per channel (default: channel with mse, else layer)",
    )
    p.add_argument(
        "--shift",
        choices=("bias", "initial", "none"),
        help="V_th/2T at every step, V_th/2 at the start, or none (default: bias with max and percentile)",
    )
    p.add_argument("--readout", choices=("membrane", "spikes"), default="membrane", help="default: membrane")
    p.add_argument(
        "--max-pool",
        choices=("spiking", "average"),
        default="spiking",
        help="max pools as they are, or average pools instead (default: spiking)",
    )
    p.add_argument(
        "--coding",
        choices=("steps", "graded"),
        default="steps",
        help="spikes per step, or each neuron's count of 0 to T once (default: steps)",
    )
    p.add_argument(
        "--refit",
        action="store_true",
        help="with graded spikes: refit weights in closed form to the counts of the first T",
    )
    p.add_argument(
        "--correction", choices=("on", "off"), help="biases corrected layer by layer (default: on with mse)"
    )
    p.add_argument(
        "--negative-threshold",
        metavar="THETA",
        type=float,
        help="negative (correction) spikes below -THETA V_th, 0: none (default: auto tries it, else none)",
    )
    p.add_argument(
        "--warm-up",
        dest="warm_up_steps",
        metavar="D",
        type=console.integer(0, 65_536),
        help="steps of input before a layer first fires (default: auto tries some, else 0)",
    )
    p.add_argument(
        "--storage",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how weights are stored (default: float32)",
    )
    p.add_argument(
        "--limit", metavar="N", type=console.integer(1, 1 << 24), help="use the first N calibration samples"
    )
    p.add_argument(
        "--samples",
        metavar="N",
        type=console.integer(0, 4096),
        default=N_SAMPLES,
        help=f"calibration samples kept in the file (default: {N_SAMPLES})",
    )
    p.add_argument(
        "--validate", metavar="F", help="samples to measure ANN and spiking network on, best with labels"
    )
    p.add_argument(
        "--plot",
        metavar="F.png",
        type=console.picture,
        help="draw errors of the layers and what T brings (.png, .svg or .pdf)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--version", action="version", version=f"evsnn {__version__}")
    return p


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise argparse.ArgumentTypeError(
            f"got {text[:40]!r}, expected two numbers, the smaller first, such as 0,1"
        )
    return low, high


def main(argv: Sequence[str] | None = None, prog: str = "python -m evsnn.convert") -> int:
    """Run the command and return its exit status."""

    def command(words: Sequence[str]) -> int:
        p = parser(prog)
        arguments = p.parse_args(words)
        if arguments.data_free:
            for flag, given in (
                ("--plot", arguments.plot),
                ("--correction on", arguments.correction == "on"),
                ("--limit", arguments.limit),
            ):
                if given:
                    p.error(f"{flag} needs calibration samples, of which --data-free has none")
        return _convert(arguments, _options(p, arguments))

    return console.run(command, argv)


def _options(p: console.Parser, arguments: argparse.Namespace) -> Options:
    """The conversion's options. Values that they refuse are errors of the command line."""
    from .conversion.balance.options import DEFAULT_STEPS, Options

    correction = {"on": True, "off": False, None: None}[arguments.correction]
    try:
        return Options(
            n_steps=arguments.steps or (DEFAULT_STEPS[arguments.coding],),
            threshold=arguments.threshold,
            granularity=arguments.granularity,
            shift=arguments.shift,
            readout=arguments.readout,
            correction=correction,
            negative_threshold=arguments.negative_threshold,
            warm_up_steps=arguments.warm_up_steps,
            max_pool=arguments.max_pool,
            coding=arguments.coding,
            refit=arguments.refit,
            task=arguments.task,
            storage=arguments.storage,
        )
    except EvsnnError as error:
        return p.error(str(error))


def _convert(arguments: argparse.Namespace, options: Options) -> int:
    _check_output(arguments)
    from .conversion.balance.calibration import open_calibration
    from .conversion.conversion import convert_model
    from .conversion.report.explanation import SWEEP, explain
    from .conversion.report.summary import Summary
    from .files.weights import save

    with ExitStack() as files:
        samples = (
            None
            if arguments.data_free
            else files.enter_context(open_calibration(arguments.calibration, limit=arguments.limit))
        )
        others = files.enter_context(open_calibration(arguments.validate)) if arguments.validate else None
        if arguments.plot and samples is not None and samples.n < 4:
            raise InputError(
                "there are too few samples to draw: a quarter of them is held out for that",
                where=arguments.calibration,
                got=samples.n,
                expected="at least 4",
            )
        with _Stages() as progress:
            conversion = convert_model(
                arguments.model,
                samples,
                options,
                progress,
                arguments.scores,
                arguments.samples,
                partial(_announce, options.n_steps[0]),
                SWEEP,
            )
            if arguments.input_range:
                conversion = replace(
                    conversion, network=conversion.network.replace(input_range=arguments.input_range)
                )
            for warning in conversion.warnings:
                console.print_message(f"warning: {warning}")
            explanation = (
                explain(conversion, progress=progress) if len(conversion.held_out) or arguments.plot else None
            )
            validations = _validate(conversion, others, options.n_steps, progress) if others else ()
        n_samples = int(conversion.network.metadata["calibration_samples"])
        summary = Summary(
            arguments.model,
            arguments.output,
            arguments.calibration,
            n_samples,
            options.storage,
            conversion,
            explanation,
            validations,
        )
        network = conversion.network.replace(metadata=summary.metadata())
    text = summary.json() if arguments.json else summary.text()
    if arguments.plot and explanation is not None:
        from .conversion.report import picture

        picture.save(arguments.plot, explanation)
        console.print_message(f"plot: {arguments.plot}")
    save(arguments.output, network, storage=options.storage)
    console.print_result(text)
    return console.DONE


def _announce(n_steps: int, parts: Mapping[str, int], network: Network) -> None:
    """Announce the memory of a conversion. The compiler starts before, so that it counts as in use."""
    from .output.memory import announce
    from .simulation import Simulator
    from .startup import import_compiler

    with suppress(EvsnnError):  # a network that cannot run is refused later, by name
        import_compiler(Simulator(network, n_steps))
    announce({**parts, "process": _PROCESS_BYTES})


def _validate(
    conversion: Conversion, samples: CalibrationSet, n_steps: Sequence[int], progress: _Stages
) -> tuple[Validation, ...]:
    """Run the ANN and the spiking network on the same samples, for every T."""
    from .conversion.balance.calibration import suspicions
    from .conversion.report.validation import targets_of, validate
    from .files.inputs import range_warning

    ann = conversion.ann
    samples = samples.fitted(ann.input_shape, ann.network.n_classes)
    scale = range_warning(conversion.network, ann.arranged(samples.read(0, min(samples.n, 256))))
    for warning in (*filter(None, [scale]), *suspicions(samples, "validation", own_scale=True)):
        console.print_message(f"warning: {warning}")
    targets = targets_of(conversion, samples, lambda done, total: progress("validating the ANN", done, total))
    return tuple(
        validate(
            conversion,
            samples,
            targets,
            T,
            partial(progress, f"T = {T}: validating"),
        )
        for T in n_steps
    )


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse before the conversion what would fail only after it."""
    if not text.has_extra("onnx"):
        raise MissingExtraError(
            "reading ONNX models needs the onnx package", hint='install it with: pip install "evsnn[onnx]"'
        )
    if arguments.plot:
        console.check_picture()
    from .files.targets import check_targets

    check_targets(
        {"--output": arguments.output, "--plot": arguments.plot},
        (arguments.model, arguments.calibration, arguments.validate),
    )


class _Stages:
    """Progress of one part of the work after another, each with a bar of its own."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._bar: console.Progress | None = None

    def __enter__(self) -> _Stages:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self.__exit__()
            self._what, self._bar = what, console.Progress(what).__enter__()
        self._bar(done, total)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._what, self._bar = None, None


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
