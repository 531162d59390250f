"""TensorRT on NVIDIA GPUs: building plans for the machine at hand, keeping them, and running them."""
