"""The cards of the models in the repository: what was measured, and where a model came from, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DATA_SETS", "DataSet", "card", "index"]

NETWORKS = {"cifarnet": "CIFARNet", "vgg16": "VGG-16", "resnet20": "ResNet-20"}


@dataclass(frozen=True)
class DataSet:
    """What a card says of a data set.

    Parameters
    ----------
    name, origin : str
    classes : tuple of str
        By label.
    """

    name: str
    origin: str
    classes: tuple[str, ...]


ORIGIN = (
    "{} (A. Krizhevsky, Learning multiple layers of features from tiny images, 2009; University of Toronto)."
    " The data set comes without a licence file; 16 of its 10,000 test images are in this file as an excerpt"
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = (
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
)
DATA_SETS = {
    "cifar10": DataSet("CIFAR-10", ORIGIN.format("CIFAR-10"), CIFAR10_CLASSES),
    "cifar100": DataSet("CIFAR-100", ORIGIN.format("CIFAR-100"), CIFAR100_CLASSES),
}


def card(record: dict) -> str:
    """A model's card, from its record (publish.py writes it)."""
    source, data = record["source"], DATA_SETS[record["data"]]
    started = f", started from {source['started_from']}" if source.get("started_from") else ""
    lines = [
        f"# {title(record)}",
        "",
        (
            f"`{record['file']}`, {megabytes(record['n_bytes'])}: the {NETWORKS[source['network']]} of Deng &"
            f" Gu (ICLR 2021), {source['n_parameters']:,} parameters, {record['n_neurons']:,} neurons,"
            f" {record['macs'] / 1e6:,.1f} million multiply-adds as an ANN. Weights are stored as"
            f" {record['storage']}, with one scale an output channel."
        ),
        "",
        "```sh",
        f"python -m evsnn.run examples/models/{record['file']}",
        "```",
        "",
        "runs it on the 16 test images in the file.",
        "",
        (
            f"**Accuracy** on all {record['n_test']:,} test images of {data.name}, by `python -m evsnn.run`;"
            f" the source ANN has {percent(record['ann_accuracy'])}. Agreement is the share of the ANN's"
            " predictions."
        ),
        "",
        "| T | arithmetic | accuracy | agreement | SOPs per sample | SOPs/MACs | rate | whole test set |",
        "|---|---|---|---|---|---|---|---|",
        *map(measured, record["rows"]),
        "",
        *([record["note"], ""] if record["note"] else []),
        (
            f"**Source ANN.** `{source['file']}`, activations limited to {source['limit']:g},"
            f" {percent(source['accuracy'])} on the test images where it was trained; seed {source['seed']},"
            f" {source['epochs']} epochs{started}, {source['minutes']:g} minutes on {source['device']}."
            f" SHA-256 `{source['sha256']}`."
        ),
        "",
        (
            f"**Conversion.** evsnn {record['evsnn']}, `auto`, with {record['n_calibration']:,} training"
            f" images, weights rounded before balancing; shift {record['shift']}, readout"
            f" {record['readout']}; own T {record['n_steps']}."
        ),
        "",
        "| T | recipe |",
        "|---|---|",
        *(f"| {T} | {recipe} |" for T, recipe in record["recipes"].items()),
        "",
        f"**Data.** {data.origin}.",
        "",
        "**Made by**",
        "",
        "```sh",
        record["command"],
        "```",
        "",
        (
            f"SHA-256 of the file: `{record['sha256']}`. Recipes, accuracies and SOPs stand in its metadata,"
            " too; `python -m evsnn.inspect` shows them."
        ),
    ]
    return "\n".join(lines) + "\n"


def measured(row: dict) -> str:
    """A line of the card's table."""
    counts = f"{row['sops'] / 1e6:.1f} M | {row['sops_per_mac']:.2f} | {row['rate']:.4f}"
    return (
        f"| {row['T']} | {row['arithmetic']} | {percent(row['accuracy'])} | {percent(row['agreement'])} |"
        f" {counts} | {row['seconds'] / 60:.1f} min, {threads(row)} |"
    )


def index(records: Sequence[dict]) -> str:
    """The README of the folder with all models."""
    own, first = records[0]["n_steps"], f"examples/models/{records[0]['file']}"
    steps = sorted(row["T"] for row in of_floats(records[0]))
    lines = [
        "# Models",
        "",
        (
            "The paper's networks as spiking networks, ready to run. Each file holds thresholds for T ="
            f" {', '.join(map(str, steps))} and 16 test images; its card says what it reaches and where it"
            " comes from."
        ),
        "",
        f"| model | size | ANN | {' | '.join(f'T = {T}' for T in steps)} | SOPs per sample at T = {own} |",
        "|---" * (len(steps) + 4) + "|",
        *(listed(record) for record in records),
        "",
        "Accuracy on the 10,000 test images, in float32.",
        "",
        "```sh",
        f"python -m evsnn.run {first}",
        "```",
        "",
        (
            "runs a model on its own samples. The whole test set, from CIFAR's images as an .npz or as"
            " torchvision keeps them:"
        ),
        "",
        "```text",
        "python -m examples.paper.data DATA -o test.npz",
        f"python -m evsnn.run {first} --input test.npz --steps {own}",
        "```",
        "",
        (
            f"The last line took {', '.join(map(took, records))}, compiling included. `--arithmetic int8`"
            " computes in integers."
        ),
        "",
        (
            "[publish.py](../paper/publish.py) made these files from what [train.py](../paper/train.py)"
            " trained; the `.json` beside a card is what was measured. None of them is in the package."
            " [docs/results.md](../../docs/results.md) measures VGG-16 on CIFAR-10 and ResNet-20 on CIFAR-100"
            " as trained later than these."
        ),
    ]
    return "\n".join(lines) + "\n"


def listed(record: dict) -> str:
    """A line of the list of models."""
    rows = sorted(of_floats(record), key=lambda row: row["T"])
    cells = [
        f"[{title(record)}]({record['system']}.md)",
        megabytes(record["n_bytes"]),
        percent(record["ann_accuracy"]),
        *(percent(row["accuracy"]) for row in rows),
    ]
    return f"| {' | '.join(cells)} | {own_row(record)['sops'] / 1e6:.1f} M |"


def took(record: dict) -> str:
    """How long the whole test set takes at the file's own T."""
    row = own_row(record)
    return f"{row['seconds'] / 60:.1f} minutes for {title(record)} ({threads(row)})"


def of_floats(record: dict) -> list[dict]:
    return [row for row in record["rows"] if row["arithmetic"] == "float32"]


def own_row(record: dict) -> dict:
    return next(row for row in of_floats(record) if row["T"] == record["n_steps"])


def title(record: dict) -> str:
    return f"{NETWORKS[record['source']['network']]} on {DATA_SETS[record['data']].name}"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def megabytes(n: int) -> str:
    return f"{n / 1e6:.1f} MB"


def threads(row: dict) -> str:
    return f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
