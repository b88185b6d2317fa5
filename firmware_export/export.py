"""From a network to the texts of its headers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evsnn.circuit.quantized import quantize
from evsnn.errors import RunError
from evsnn.network.network import Network

from .text.header import Export, export_header, text_bytes
from .text.names import check_name, name_from
from .text.runtime import runtime

__all__ = ["Settings", "export_files", "export_network"]


@dataclass(frozen=True)
class Settings:
    """How to export.

    Parameters
    ----------
    name : str, optional
        None: made of `source`.
    source : str
        The weights file's name.
    n_steps : int, optional
        None: the network's own.
    order : {"layer", "step"}, optional
        None: "step" if the input is events and no neuron warms up, else "layer".
    compact : bool
        Weights of 1 byte if membranes have 32 bits, instead of 2: less flash, slower. So, too, if
        `flash_bytes` asks for it.
    single_file : bool
        Whether the header holds the runtime.
    ram_bytes, flash_bytes : int, optional
        The most that the context and the constants may take.
    n_vectors : int
        Samples for a self-test.
    """

    name: str | None = None
    source: str = "network"
    n_steps: int | None = None
    order: str | None = None
    compact: bool = False
    single_file: bool = False
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    n_vectors: int = 0


def export_network(
    network: Network, settings: Settings | None = None, before: Callable[[int], object] | None = None
) -> Export:
    """Bring a network to integers, and those to C.

    Parameters
    ----------
    network : Network
    settings : Settings, optional
        None: the defaults.
    before : callable (n_bytes), optional
        It is called with the bytes that the text will take, before it is made.

    Returns
    -------
    Export

    Raises
    ------
    RunError
        If it cannot be brought to integers or C, its name is none, or it needs more memory than there is.
    """
    settings = settings or Settings()
    name = check_name(settings.name) if settings.name is not None else name_from(settings.source)
    if network.input.encoding == "poisson":
        network = network.replace(
            layers=[_as_events(layer) if layer is network.input else layer for layer in network.layers]
        )
    quantized = quantize(network, settings.n_steps)
    by_step = settings.order == "step" or (
        settings.order is None and not quantized.circuit.analog and not quantized.circuit.has_warm_up
    )
    if settings.n_vectors and (network.samples is None or not quantized.circuit.analog):
        raise RunError(
            "there are no samples for a self-test",
            got=f"{settings.n_vectors} wanted",
            hint="store samples in the file, or leave --self-test out",
        )
    if before is not None:
        before(text_bytes(quantized))
    export = export_header(
        quantized, name, by_step=by_step, compact=settings.compact, n_vectors=settings.n_vectors
    )
    if (
        settings.flash_bytes is not None
        and export.constant_bytes > settings.flash_bytes
        and not settings.compact
    ):
        export = export_header(quantized, name, by_step=by_step, compact=True, n_vectors=settings.n_vectors)
    for what, option, got, most in (
        ("RAM", "--ram", export.context_bytes, settings.ram_bytes),
        ("flash", "--flash", export.constant_bytes, settings.flash_bytes),
    ):
        if most is not None and got > most:
            buffers = (
                "; ".join(
                    f"{b.name} {b.n_bytes:,}"
                    for b in sorted(export.placed.buffers, key=lambda b: -b.n_bytes)[:8]
                )
                if what == "RAM"
                else ""
            )
            raise RunError(
                f"the network needs more {what} than there is",
                where=option,
                got=f"{got:,} bytes{f' ({buffers})' if buffers else ''}",
                expected=f"at most {most:,}",
                hint="use fewer steps, or a smaller network",
            )
    return export


def _as_events(layer):
    """Poisson spikes are drawn by whoever feeds the network: to the firmware they are events."""
    return type(layer)(layer.shape, "events", name=layer.name)


def export_files(export: Export, settings: Settings = Settings()) -> dict[str, str]:
    """The headers of an export.

    Parameters
    ----------
    export : Export
    settings : Settings

    Returns
    -------
    dict of str to str
        Their names and texts.
    """
    text, _ = runtime()
    if not settings.single_file:
        return {f"{export.name}.h": export.text, "evsnn_rt.h": text}
    return {f"{export.name}.h": export.text.replace('#include "evsnn_rt.h"\n', text, 1)}
