"""Live video segmentation on edge devices."""
