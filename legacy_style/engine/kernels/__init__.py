"""How a convolution or a Gram matrix is computed on a device. Called by layers and losses, it knows neither."""
