"""An image goes in, losses and a gradient come out, and an optimiser goes down them.

The engine takes plain values, never a program's options, and knows no program's losses. A program uses it like this:

    chain, _ = loadcaffe.modules(model_files.load(path))  # the layers of a model file, not built yet
    net = network.build(
        chain,
        losses={"relu4_2": [ContentLoss("content", 5.0)], "relu1_1": [StyleLoss("style", 100.0)]},
        image_losses=[TVLoss("tv", 1e-3)],
    )
    network.place(net, [torch.device("cpu")])
    objective = Objective(net)  # or in tiles: Objective(net, net.tiles(height, width, 512))
    objective.capture(content, net.losses_from("content"))  # (1, 3, H, W), as the network takes it
    objective.capture(style, net.losses_from("style"))
    values, gradient = objective(image)  # {name: value}, (1, 3, H, W)

A loss is a `losses.Loss`: `begin`, `capture(x, where)`, `accumulate(x, where)`, `sums()`, `finish(sums)`,
`backward(x, grad, where)` and `forget()`, with a `name`, the `source` of its targets and a `value`. `where` is the
rectangle of the layer's map that x covers, so that a loss is the same in one piece, in tiles and in several processes.
An image loss has the same methods, gets the image itself, and says by its `reach` how many pixels around its own part
it looks at.

The engine may import torch7/, formats/ and the modules beside the rooms.
"""
