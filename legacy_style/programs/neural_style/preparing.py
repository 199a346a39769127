"""What stands before an optimisation: the network and the images, the memory plan, the targets, and the start.

Ports neural_style.lua 07c4b82, main(), from the building of the network to the initial image.
"""

from __future__ import annotations

from torch import Tensor

from legacy_style.engine import checkpoint, network
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.processes import parts
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.session import Session, weights_digest
from legacy_style.programs.neural_style import building, regions
from legacy_style.programs.neural_style.building import Loaded
from legacy_style.programs.neural_style.images import Images, share_images
from legacy_style.programs.neural_style.output import Array, Log
from legacy_style.programs.neural_style.settings import Settings


def ignore(line: str) -> None:
    """A log, or notice, that nobody reads."""


def prepare(
    settings: Settings,
    loaded: Loaded,
    log: Log = ignore,
    notice: Log = ignore,
    ranks: Ranks | None = None,
    before: Array | None = None,
    ready: Network | None = None,
) -> tuple[Network, Images]:
    """The network on its devices, `ready` where it is, and the images."""
    ranks = ranks or Ranks()
    images = share_images(settings, ranks, notice, before)
    if ready is None:
        net = building.build_network(settings, loaded.chain, log)
        net.autotune = settings.autotune
        network.place(net, loaded.devices, settings.splits, [gpu + 1 for gpu in settings.gpus])
    else:
        net = ready
    building.check_sizes(net, images)
    parts.check(net, images.content.shape[2], images.content.shape[3], ranks)
    return net, images


def make_optimizer(settings: Settings, log: Log, ranks: Ranks) -> Lbfgs | Adam:
    if settings.optimizer == "adam":
        return Adam(settings.num_iterations, settings.learning_rate)
    return Lbfgs(settings.num_iterations, settings.correction, log=log, ranks=ranks)


def make_plan(settings: Settings, net: Network, images: Images, ranks: Ranks) -> Plan:
    """What the run will need in this process; with tiles where its part does not fit in one piece."""
    vectors = make_optimizer(settings, ignore, Ranks()).vectors
    if images.guidance is not None:
        # The maps at the image's size, and for the losses at about twice that.
        vectors = {**vectors, "guidance maps of the regions": len(images.guidance.content) + 1}
    ways = ["a smaller -image_size"]
    if settings.optimizer == "lbfgs" and vectors["L-BFGS's correction pairs"] > 10:
        ways.insert(0, "-lbfgs_num_correction 5 or -optimizer adam")
    # Images go once their targets are taken, before the passes that take most.
    loaded = [image for image in (images.content, *images.styles, images.init) if image is not None]
    return Session(net, ranks=ranks).plan(
        _size(images.content),
        [_size(style) for style in images.styles],
        vectors,
        ways=ways,
        images=sum(image.nbytes for image in loaded if image.device.type == "cpu"),
        tile=settings.tile,
        may_move=True,
    )


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]


def digests(net: Network, images: Images) -> dict[str, str]:
    """Digests of what the settings only name."""
    inputs = weights_digest(net)
    if images.guidance is not None:
        guidance = images.guidance
        inputs["the regions or the mask"] = checkpoint.digest(
            guidance.content, guidance.weights, *guidance.styles
        )
    if images.content.device.type == "meta":  # only the first process has them
        return inputs
    inputs |= {
        "the content image": checkpoint.digest(images.content),
        "the style images": checkpoint.digest(*images.styles),
    }
    return inputs if images.init is None else {**inputs, "the init image": checkpoint.digest(images.init)}


def capture(
    net: Network,
    images: Images,
    settings: Settings,
    log: Log = ignore,
    ranks: Ranks | None = None,
    *,
    tile: int = 0,
    styled: bool = False,
) -> Session:
    """A session with the targets of content and style images, in tiles of side `tile` if not 0.

    `styled`: the network has those of the style images.
    """
    session = Session(net, tile=tile, ranks=ranks)
    log("Capturing content targets\t")
    for line in str(net).split("\n"):
        log(line)
    guidance = images.guidance
    if guidance is not None:
        regions.guide(net, guidance.content, guidance.weights)
    session.set_content(images.content)
    if styled:
        return session
    for loss in net.losses_from("style"):
        loss.forget()
    for number, (style, weight) in enumerate(zip(images.styles, settings.blend_weights, strict=True), 1):
        log(f"Capturing style target {number}\t")
        if guidance is not None:
            regions.guide(net, guidance.styles[number - 1])
        session.add_style(style, weight)
    if guidance is not None:
        regions.guide(net, guidance.content)
    return session


def initial_image(settings: Settings, images: Images, session: Session) -> Tensor:
    """Where the optimisation starts, (1, 3, H, W): noise of deviation 0.001 in Caffe units, or an image.

    Where processes share the session, what this one owns of the image.
    """
    if settings.init == "image":
        return session.scatter(images.content if images.init is None else images.init)
    return session.noise(settings.seed).mul_(0.001)
