"""Which layers of a network compute features, and which only feed, judge or record it.

That is known by how a layer is connected, not by its name: forks of Caffe have data layers and losses of their own
(AnnotatedData, ImageSegData, MultiBoxLoss, a V1 number that nobody else knows).
"""

from __future__ import annotations

from legacy_style.formats.caffe.netparam import LayerParameter, NetParameter

# Judge or record, whatever their tops are.
_SINK_TYPES = frozenset({"Accuracy", "ArgMax", "HDF5Output", "Silence"})


def feeds(layer: LayerParameter) -> bool:
    """Whether the layer is where images (or labels) come in: it makes blobs out of nothing, and has no weights."""
    return bool(layer.tops) and not layer.bottoms and not layer.blobs


def measures(layer: LayerParameter) -> bool:
    """Whether the layer is a loss, judges or records: nothing that computes features depends on it."""
    if layer.type in _SINK_TYPES or layer.type.endswith("Loss"):
        return True
    return bool(layer.bottoms) and not layer.blobs and (not layer.tops or any(layer.loss_weight))


def image_blobs(net: NetParameter) -> set[str]:
    """The names of the blobs that are the image: "data", declared inputs, and what data layers make first.

    What a data layer makes beside it are labels, sizes and the like, but for one that it calls "data".
    """
    blobs = {"data", *net.inputs}
    for layer in filter(feeds, net.layers):
        blobs.add("data" if "data" in layer.tops else layer.tops[0])
    return blobs


def outside_inference(net: NetParameter) -> set[int]:
    """The positions in `net.layers` of what gives no features: layers that feed or measure, or work on labels alone.

    A layer without weights that looks at labels too, and whose outputs nobody takes, measures under whatever name.
    """
    images = image_blobs(net)
    labels = {top for layer in net.layers if feeds(layer) for top in layer.tops} - images
    taken = {bottom for layer in net.layers for bottom in layer.bottoms}
    found = set()
    for index, layer in enumerate(net.layers):
        if feeds(layer):
            found.add(index)
            continue
        alone = bool(layer.bottoms) and labels.issuperset(layer.bottoms)
        judging = not layer.blobs and not labels.isdisjoint(layer.bottoms) and taken.isdisjoint(layer.tops)
        if alone or judging or measures(layer):
            found.add(index)
        (labels.update if alone else labels.difference_update)(layer.tops)
    return found
