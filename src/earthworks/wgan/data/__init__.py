"""Training data of a GAN: toy distributions, images, arrays, and the batches drawn from them."""

__all__: list[str] = []
