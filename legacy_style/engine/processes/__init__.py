"""Several processes that share one image, by torch.distributed: `group` joins them, `parts` cuts the image,
`vector_free` is L-BFGS whose vectors no process holds whole.
"""
