"""docs/results.md, from the results alone.

Every figure in its tables and every count in its sentences is computed here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.paper import paper_numbers
from examples.paper.records import AVERAGE
from examples.paper.results import ACTIVATIONS, MAKERS, System

__all__ = ["Comparison", "comparisons", "document"]

OURS, BASELINES = ("S", "T", "TS"), ("RMP", "percentile")
NAMES = {"engine": "evsnn", "dense": "dense"}
FEWER = "†"
SAYS = {
    "2A": (
        "The largest activation of each layer, over 4,096 training images, of the regular and of the"
        " threshold ANN. After the paper's Figure 2A."
    ),
    "2B": (
        "Accuracy of the two source ANNs, and of the networks converted from them without a shift. After the"
        " paper's Figure 2B."
    ),
    "3A-D": (
        "Accuracy against T: RMP, S, T and TS, for two networks and two data sets. In the manner of the"
        " paper's Figure 3A; what its Figures 3B to 3D show is not reproduced."
    ),
    "4": (
        "Accuracy against synaptic operations per sample, as a multiple of the ANN's multiply-adds, for"
        " TS and `auto`; T stands beside each point. In the manner of the paper's Figure 4. Operations are"
        " counted by evsnn; accuracies are of the simulation with more images. Left of the dotted line a"
        " spiking network does fewer additions than its ANN has multiply-adds."
    ),
}


@dataclass(frozen=True)
class Comparison:
    """A loss of ours beside the paper's, both against a source ANN of the same kind, in points.

    Parameters
    ----------
    system : System
    method : str
    row : mapping
        Ours.
    paper : float
        The paper's accuracy, in percent.
    activation : str
        Of the ANN against which both lose.
    ours, theirs : float
    """

    system: System
    method: str
    row: Mapping
    paper: float
    activation: str
    ours: float
    theirs: float

    @property
    def within(self) -> bool:
        return round(self.ours - self.theirs, 6) <= paper_numbers.NOISE


def comparisons(system: System, activation: str) -> Iterator[Comparison]:
    """Every loss that the paper lets us compare: of TS, and of T over t = 400 to 600."""
    ann = paper_numbers.ANN[system.name].get(activation)
    listed = [("TS", T, accuracy) for T, accuracy in paper_numbers.TS[system.name].items()] + [
        ("T", AVERAGE, paper_numbers.T_MEAN[system.name])
    ]
    for method, T, accuracy in listed:
        row = system.fullest(method, T)
        ours = row and system.ann_accuracy(activation, row["n_samples"])
        if ann is not None and ours is not None:
            yield Comparison(
                system, method, row, accuracy, activation, 100 * (ours - row["accuracy"]), ann - accuracy
            )


def document(systems: Sequence[System], figures: Mapping[str, str], docs: Path) -> str:
    """The page.

    Parameters
    ----------
    systems : sequence of System
    figures : mapping of str to str
        The paper's figure -> the file in docs/figures.
    docs : Path
        The folder of the page: other pages are linked where they are.
    """
    sections = (
        head(),
        sources(systems),
        losses(systems),
        autos(systems),
        baselines(systems),
        pictures(figures),
        agreements(systems),
        imagenet(docs),
        differences(systems, docs),
    )
    return "\n".join(wrapped(line) for section in sections for line in section)


def wrapped(line: str) -> str:
    """Prose in lines of 160 characters; tables, headings and pictures as they are."""
    if line.startswith(("|", "#", "!")):
        return line
    indent = " " * (line.find("- ") + 2) if line.lstrip().startswith("- ") else ""
    return textwrap.fill(line, 160, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def head() -> list[str]:
    return [
        "# The paper's systems, measured beside its tables",
        "",
        (
            "Deng & Gu, *Optimal conversion of conventional artificial neural networks to spiking neural"
            " networks*, ICLR 2021: its networks, trained, converted and run here. This page is written by"
            " `python -m examples.paper.tables` from the JSON in"
            " [examples/paper/results](../examples/paper/results); change those, not the page."
        ),
        "",
        "```sh",
        "python -m examples.paper.train vgg16 CIFAR10 -o MODELS/vgg16_cifar10_threshold --limit 1",
        "python -m examples.paper.evaluate MODELS -o RUNS --cifar10 CIFAR10 --cifar100 CIFAR100",
        "python -m examples.paper.dense MODELS/vgg16_cifar10 CIFAR10 -o RUNS",
        "python -m examples.paper.tables RUNS MODELS",
        "```",
        "",
        "| method | source ANN | thresholds | shift |",
        "|---|---|---|---|",
        "| S | regular ReLU | largest activation of each layer | V_th/2T a step |",
        "| T | threshold ReLU | largest activation | none |",
        "| TS, the paper's | threshold ReLU | largest activation | V_th/2T a step |",
        "| RMP | regular ReLU | largest activation | none |",
        "| percentile | regular ReLU | 99.9 % of a layer's activations lie below | none |",
        (
            "| `auto` | threshold ReLU | evsnn's choice for each T, by 512 training images without labels |"
            " V_th/2 at the start |"
        ),
        "",
        (
            "Accuracies are in percent of the test images. A *loss* is the source ANN's accuracy on the same"
            " images less the spiking network's, in points: negative where the spiking network is better."
            " *evsnn* is evsnn's event-driven engine in float32, *dense* a synchronous simulation in PyTorch"
            ' that takes only thresholds from evsnn. "400-600" is the mean of the accuracies at t = 400 to'
            " 600 of one run, whose shift is V_th/1600 a step where there is one. RMP and percentile are"
            " conversions of our own source ANNs in the manner of these methods, not their authors' networks."
        ),
        "",
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table; None is a blank cell."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [
        *lines,
        *("| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in rows),
        "",
    ]


def heading(n_steps: int | str) -> str:
    return n_steps if n_steps == AVERAGE else f"T = {n_steps}"


def percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}"


def points(value: float | None) -> str | None:
    return None if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "**no**"


def loss(row: Mapping) -> float:
    return 100 * (row["ann_accuracy"] - row["accuracy"])


def n_test(system: System) -> int:
    """Test images of the data set, as far as anything that was measured tells."""
    rows = [
        row["n_samples"]
        for runs in system.runs.values()
        for record in runs.values()
        for row in record["rows"]
    ]
    return max([*rows, *(source.get("n_test", 0) for source in system.sources.values())], default=0)


def sources(systems: Sequence[System]) -> list[str]:
    rows, near = [], []
    for system in systems:
        for activation in ACTIVATIONS:
            source = system.sources.get(activation)
            if not source or "seed" not in source:
                continue
            theirs = paper_numbers.ANN[system.name].get(activation)
            ours = 100 * source["accuracy"]
            near += [] if theirs is None else [ours >= theirs - 1]
            limit = "" if source["limit"] is None else f", y_th = {source['limit']:g}"
            rows.append(
                (
                    system.title,
                    activation + limit,
                    f"{ours:.2f}",
                    None if theirs is None else f"{theirs:g}",
                    None if theirs is None else points(ours - theirs),
                    source["seed"],
                    source["epochs"],
                    source["started_from"],
                    f"{source['minutes']:g}",
                    source["device"],
                    source.get("weights_sha256"),
                )
            )
    if not rows:
        return []
    header = (
        "system",
        "ReLU",
        "accuracy",
        "the paper's",
        "difference",
        "seed",
        "epochs",
        "weights at the start",
        "minutes",
        "on",
        "SHA-256 of its weights",
    )
    said = (
        f"{sum(near)} of the {len(near)} source ANNs for which we know the paper's accuracy reach it within a"
        " point, or pass it. Minutes are of training. The last epoch was taken, not the one with the best"
        " test accuracy."
    )
    return ["## Source ANNs", "", *table(header, rows), said, ""]


def losses(systems: Sequence[System]) -> list[str]:
    lines = ["## What conversion loses", "", *verdicts(systems)]
    for system in systems:
        if any(system.steps((method,)) for method in OURS):
            lines += [f"### {system.title}", "", *by_steps(system, OURS), *beside_the_paper(system)]
    return lines


def by_steps(system: System, methods: Sequence[str]) -> list[str]:
    """Accuracy and loss, a row a method and simulation, a column a T."""
    steps, whole, fewer = system.steps(methods), n_test(system), set()
    rows = []
    for method in methods:
        for by in MAKERS:
            cells = []
            for T in steps:
                row = system.row(method, by, T)
                if row and row["n_samples"] < whole:
                    fewer.add(row["n_samples"])
                mark = FEWER if row and row["n_samples"] < whole else ""
                cells.append(row and f"{percent(row['accuracy'])} / {points(loss(row))}{mark}")
            if any(cells):
                rows.append((f"{method}, {NAMES[by]}", *cells))
    note = (
        [
            (
                f"{FEWER} the first {', '.join(f'{n:,}' for n in sorted(fewer))} test images; all others: all"
                f" {whole:,}."
            ),
            "",
        ]
        if fewer
        else [f"All {whole:,} test images.", ""]
    )
    return [*table(("accuracy / loss", *map(heading, steps)), rows), *note]


def beside_the_paper(system: System) -> list[str]:
    """Our TS (and T's mean) and the paper's, a row per T."""
    both = {
        activation: {(c.method, c.row["T"]): c for c in comparisons(system, activation)}
        for activation in ACTIVATIONS
    }
    rows = []
    for key in dict.fromkeys(key for found in both.values() for key in found):
        known = [both[activation].get(key) for activation in ("threshold", "regular")]
        judged = next(c for c in known if c)
        cells = [cell for c in known for cell in ((points(c.ours), points(c.theirs)) if c else (None, None))]
        rows.append(
            (
                f"{key[0]}, {key[1]}",
                f"{judged.row['n_samples']:,}",
                percent(judged.row["accuracy"]),
                f"{judged.paper:.2f}",
                *cells,
                yes(judged.within),
            )
        )
    if not rows:
        return []
    header = (
        "method, T",
        "images",
        "ours",
        "the paper's",
        "loss to the threshold ANN",
        "the paper's",
        "loss to the regular ANN",
        "the paper's",
        "within 0.2",
    )
    return table(header, rows)


def verdicts(systems: Sequence[System]) -> list[str]:
    """How many losses to the source ANN are the paper's or smaller, and which are not."""
    lines = []
    without = [system for system in systems if "threshold" not in paper_numbers.ANN[system.name]]
    for activation, judged in (
        ("threshold", [system for system in systems if system not in without]),
        ("regular", without),
    ):
        found = [c for system in judged for c in comparisons(system, activation)]
        if found:
            larger = [c for c in found if not c.within]
            names = (
                ""
                if activation == "threshold"
                else (
                    f", for {' and '.join(system.title for system in judged)}, of whose threshold ANN we do"
                    " not know the paper's accuracy"
                )
            )
            lines.append(
                f"- Against the {activation} ANN{names}: {len(found) - len(larger)} of {len(found)} losses"
                f" are at most {paper_numbers.NOISE:g} points above the paper's."
            )
            for system in dict.fromkeys(c.system for c in larger):
                cases = (
                    f"{c.method} at {c.row['T']} {points(c.ours)} against {points(c.theirs)}"
                    for c in larger
                    if c.system is system
                )
                lines.append(f"  - above it for {system.title}: {', '.join(cases)}.")
    if not lines:
        return []
    intro = (
        "The paper's accuracies are of TS, and of T for 400-600, both from the threshold ANN: a loss is that"
        " to this ANN. Its tables carry about 0.1 points of rounding, so a loss counts as the same up to"
        f" {paper_numbers.NOISE:g} points above. Ours is of the simulation with more images, evsnn's where"
        " both have as many. The paper states its losses against the regular ANN; they stand beside, and"
        " hold, too, how much better or worse the threshold ANN came out of its training."
    )
    return [intro, "", *lines, ""]


def autos(systems: Sequence[System]) -> list[str]:
    """evsnn's own choice beside TS at the same T."""
    rows, better, beside = [], [], []
    for system in systems:
        known = paper_numbers.ANN[system.name]
        activation = "threshold" if "threshold" in known else "regular"
        macs = system.sources.get("threshold", {}).get("macs")
        for T in system.steps(("auto",), ("engine",)):
            ours, paper = system.row("auto", "engine", T), system.row("TS", "engine", T)
            cells = [
                (percent(r["accuracy"]), points(loss(r)), *operations(r, macs)) if r else (None,) * 4
                for r in (ours, paper)
            ]
            rows.append((system.title, T, ours["recipe"], *cells[0], *cells[1]))
            better += [loss(ours) < loss(paper)] if paper and paper["n_samples"] == ours["n_samples"] else []
            ann, theirs = (
                system.ann_accuracy(activation, ours["n_samples"]),
                paper_numbers.TS[system.name].get(T),
            )
            beside += (
                [100 * (ann - ours["accuracy"]) < known[activation] - theirs]
                if None not in (ann, theirs)
                else []
            )
    if not rows:
        return []
    header = (
        "system",
        "T",
        "chosen",
        "accuracy",
        "loss",
        "M SOPs",
        "SOPs/MACs",
        "TS",
        "loss",
        "M SOPs",
        "SOPs/MACs",
    )
    said = (
        [
            f"`auto` loses less than TS in {sum(better)} of the {len(better)} cases in which both ran at the"
            " same T"
        ]
        if better
        else []
    )
    said = (
        [
            (
                f"{said[0]}; less than the paper's TS, in {sum(beside)} of the {len(beside)} for which the"
                " paper gives a loss."
            ),
            "",
        ]
        if said
        else []
    )
    intro = (
        "evsnn's own choice of thresholds, bias correction, negative spikes and warm-up for each T, beside"
        " TS, both by evsnn's engine. *SOPs* are synaptic operations per sample (additions of a weight),"
        " *MACs* the ANN's multiply-adds; recipes are explained in [convert.md](convert.md)."
    )
    return ["## `auto`", "", intro, "", *table(header, rows), *said]


def operations(row: Mapping, macs: int | None) -> tuple[str | None, str | None]:
    if row["sops"] is None:
        return None, None
    return f"{row['sops'] / 1e6:.1f}", f"{row['sops'] / macs:.2f}" if macs else None


def baselines(systems: Sequence[System]) -> list[str]:
    lines = []
    for system in systems:
        if any(system.steps((method,)) for method in BASELINES):
            lines += [f"### {system.title}, baselines", "", *by_steps(system, BASELINES)]
    intro = (
        "Threshold balancing with soft reset (RMP) and 99.9 % percentiles, both without a shift, from the"
        " regular ANN that S is made from."
    )
    return ["## Baselines", "", intro, "", *lines] if lines else []


def pictures(figures: Mapping[str, str]) -> list[str]:
    if not figures:
        return []
    lines = ["## Figures", "", "These are ours, drawn after what the paper's figures show.", ""]
    for figure, name in figures.items():
        lines += [SAYS[figure], "", f"![{SAYS[figure].split('.')[0].replace('`', '')}](figures/{name})", ""]
    return lines


def agreements(systems: Sequence[System]) -> list[str]:
    """How many predictions of the engine are the dense simulation's."""
    records = [
        (system, method, runs["engine"])
        for system in systems
        for method, runs in system.runs.items()
        if "engine" in runs
    ]
    rows_of = [
        (
            system,
            method,
            {row["T"]: row for row in engine["rows"] if "engine_dense_agreement" in row},
            engine.get("ann_agreement"),
        )
        for system, method, engine in records
    ]
    rows_of = [entry for entry in rows_of if entry[2]]
    if not rows_of:
        return []
    steps = sorted({T for _, _, rows, _ in rows_of for T in rows}, key=lambda T: (T == AVERAGE, T))
    rows = [
        (
            system.title,
            method,
            percent(ann),
            *(f"{percent(r['engine_dense_agreement'])}" if (r := found.get(T)) else None for T in steps),
        )
        for system, method, found, ann in rows_of
    ]
    least, where, method, row = min(
        ((r["engine_dense_agreement"], s.title, m, r) for s, m, found, _ in rows_of for r in found.values()),
        key=lambda entry: entry[0],
    )
    said = (
        "The share of test images, in percent, to which evsnn's engine and the dense simulation give the"
        " same class: of all that both have seen, at the times at which both were read. Both sum float32"
        " numbers in orders of their own, and a membrane that meets its threshold almost exactly may fire a"
        " step apart; where few spikes have come to the last layer yet, one decides. The least is"
        f" {percent(least)} %, of {where}, {method} at {row['T']}, which classes {percent(row['accuracy'])} %"
        " right."
    )
    header = ("system", "method", "ANN", *map(heading, steps))
    return ["## Engine and dense simulation, prediction by prediction", "", said, "", *table(header, rows)]


def imagenet(docs: Path) -> list[str]:
    if not (docs / "imagenet.md").exists():
        return []
    return [
        "## ImageNet",
        "",
        (
            "What was and what was not reproduced of the paper's ImageNet rows stands in"
            " [imagenet.md](imagenet.md)."
        ),
        "",
    ]


def differences(systems: Sequence[System], docs: Path) -> list[str]:
    """What is not as in the paper or its code."""
    limited = [
        (source["limit"], system)
        for system in systems
        for source in system.sources.values()
        if source.get("limit")
    ]
    limits = sorted(
        {
            f"{limit:g} on {system.name.rpartition('_')[2].upper().replace('CIFAR', 'CIFAR-')}"
            for limit, system in limited
        }
    )
    lines = [
        (
            "Not reproduced are the recurrent network of the paper's appendix A.4 and what its Figures 3B to"
            " 3D show."
        ),
        "",
        "Where the paper and the code published with it differ, the paper is followed:",
        "",
        (
            "- The shift V_th/2T is added at all layers but the last, residual sums included; the code's"
            " residual sums have none."
        ),
        (
            "- T is the run's own: each T is a run with its own shift. The code keeps one shift (of 32 steps"
            " unless told otherwise) and reads shorter and longer runs with it."
        ),
        (
            "- CIFAR-100 networks may start from CIFAR-10 weights, as in the paper (see the table of source"
            " ANNs); the code has no such step."
        ),
        (
            "- Plain ReLU for a first part of the epochs, then the limit; the code's networks take the limit"
            " from the start."
        ),
        (
            "- Dropout in training; the code has none in VGG-16 and CIFARNet, and drops everything in"
            " ResNet-20 once a limit is set."
        ),
        "- The mean over t = 400 to 600 with a shift of V_th/1600; the code has no such run.",
        *([f"- y_th is {', '.join(limits)}."] if limits else []),
        "",
        (
            "Where only the code says what a network is, it is followed: 1x1 convolutions third in the wide"
            " stages of VGG-16 and no fifth pool; a ResNet-20 without any bias and without a global pool."
            " CIFARNet ends in a fully connected layer, as in the code; the paper has it vote. No network has"
            " batch norm."
        ),
        "",
        "Ours alone:",
        "",
        (
            "- The training recipe of [train.py](../examples/paper/train.py): a cosine for the learning rate"
            " (the paper: 0.01, divided by ten after 180, 240 and 270 of 300 epochs), crops, mirror images,"
            " erased squares, clipped gradients, bfloat16 products, weights rounded to float16 at the end."
        ),
        (
            "- VGG-16's threshold ANN has a little more dropout behind convolutions on CIFAR-10 than the"
            " paper's (0.25 for 0.2; both 0.5 behind dense layers), which conversion needs as much as"
            " accuracy does: earlier networks, trained with 0.1 and 0.2, lost 0.7 and 0.2 points at T = 16"
            " (TS, the first 2,000 images), this one loses none."
        ),
        (
            "- On CIFAR-100 both VGG-16 and the regular ResNet-20 saw CutMix and smoothed labels. VGG-16's"
            " two are the third of three such trainings in a row, of which they share the first two, without"
            " a limit."
        ),
        (
            "- VGG-16 on CIFAR-10 was trained on from the int8 weights of"
            " [examples/models](../examples/models/README.md), ResNet-20 on CIFAR-100 from those of ResNet-20"
            " on CIFAR-10 there. The models for these two systems there are of earlier trainings: their cards"
            " tell of those, this page of what came later."
        ),
        (
            "- Thresholds come from 4,096 training images as they are, drawn with a fixed seed; the code"
            " takes one pass over the augmented training set."
        ),
        (
            "- Scores are the last layer's membranes; the code lets the last layer fire and counts its"
            " spikes, which loses negative scores."
        ),
        (
            "- CIFAR-100 training images at hand are JPEG copies (quality 94) of the originals; its test"
            " images are lossless. The official order is not known; both are shuffled by NumPy's"
            " default_rng(0).permutation. CIFAR-10 is lossless throughout, in its own order."
        ),
    ]
    if (docs / "conversion-results.md").exists():
        lines += [
            "",
            (
                "Another set of networks, and a depthwise one with batch norm, is measured in"
                " [conversion-results.md](conversion-results.md)."
            ),
        ]
    return ["## What differs from the paper and from its code", "", *lines, ""]
